"""One suite for everything that scores the catalogue: the model and each baseline."""

import numpy as np
import pytest
import torch

from srgnn.blend import BlendScorer, BlendWeights
from srgnn.errors import InputError
from srgnn.fallback import Fallback
from srgnn.habits import learn
from srgnn.model import SRGNN, SRGNNConfig
from srgnn.neighbours import Neighbours
from srgnn.recommender import Recommender
from srgnn.scorer import SRGNNScorer
from srgnn.sequence import SessionRules
from srgnn.session_index import SessionIndex
from srgnn.trend import trend
from srgnn.vocabulary import Vocabulary
from tests.corpora import random_sessions, split_of
from training.baselines import BASELINES, fit_baselines
from training.examples import Examples

ITEMS, CLICKED = 150, 140  # rows 140..149 have no training clicks
RULES = SessionRules(max_length=6)
VOCABULARY = Vocabulary([f"item {row}" for row in range(ITEMS)])
SPLIT = split_of([*random_sessions(0, 200, CLICKED), list(range(CLICKED))])
SEQUENCES = [np.array(session[-6:]) for session in random_sessions(1, 40, ITEMS)]


def model(scoring):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = SRGNNConfig(hidden_size=8, scoring=scoring)
        return SRGNN(config, ITEMS, RULES.max_length).eval()


def build(name) -> Recommender:
    if name in BASELINES:
        return fit_baselines(VOCABULARY, RULES, SPLIT)[name]
    fallback = Fallback.from_sessions(SPLIT.items, SPLIT.offsets, ITEMS)
    late = trend(SPLIT.items, SPLIT.offsets, ITEMS)
    scorer = SRGNNScorer.of_model(model(name.removesuffix(" + neighbours")), fallback.clicks > 0, late)
    if name.endswith(" + neighbours"):
        index = SessionIndex.build(SPLIT.items, SPLIT.offsets, ITEMS)
        examples = Examples(SPLIT, RULES)
        habits = learn(*examples.batch(np.arange(len(examples))))
        scorer = BlendScorer(scorer, Neighbours(index), BlendWeights(0.2, -0.5, 0.1, 0.3, 0.4, 0.5, -0.6, 0.7), habits)
    return Recommender(VOCABULARY, RULES, scorer, fallback, name)


@pytest.fixture(scope="module", params=[*BASELINES, "dot", "cosine", "dot + neighbours", "cosine + neighbours"])
def recommender(request) -> Recommender:
    return build(request.param)


@pytest.fixture(scope="module")
def scorer(recommender):
    return recommender.scorer


def test_all_items_are_scored(scorer):
    assert scorer.num_items == ITEMS


def test_lists_have_k_distinct_items_by_falling_score(scorer):
    top = scorer.top_k(SEQUENCES, 20)
    assert top.rows.shape == top.scores.shape == (len(SEQUENCES), 20)
    assert top.rows.dtype == np.int64
    assert top.scores.dtype == np.float32
    assert all(len(set(rows)) == 20 for rows in top.rows.tolist())
    assert (np.diff(top.scores, axis=1) <= 0).all()


def test_equal_scores_are_ordered_by_row(scorer):
    top = scorer.top_k(SEQUENCES, CLICKED)
    tied = np.diff(top.scores, axis=1) == 0
    assert (np.diff(top.rows, axis=1)[tied] > 0).all()


def test_a_smaller_k_is_a_prefix(scorer):
    many = scorer.top_k(SEQUENCES, 50).rows
    for k in (1, 7, 20):
        assert np.array_equal(scorer.top_k(SEQUENCES, k).rows, many[:, :k])


def test_a_batch_of_many_is_each_alone(scorer):
    together = scorer.top_k(SEQUENCES, 20)
    for i, sequence in enumerate(SEQUENCES):
        alone = scorer.top_k([sequence], 20)
        assert np.array_equal(alone.rows[0], together.rows[i])
        assert np.array_equal(alone.scores[0], together.scores[i])


def test_excluded_items_are_left_out_and_the_rest_keeps_its_order(scorer):
    full = scorer.top_k(SEQUENCES, CLICKED).rows
    exclude = [rows[::2] for rows in full]
    assert np.array_equal(scorer.top_k(SEQUENCES, 20, exclude).rows, full[:, 1:41:2])


def test_nothing_is_left_when_all_is_excluded(scorer):
    top = scorer.top_k(SEQUENCES[:1], 3, [np.arange(1, ITEMS)])
    assert top.rows.tolist() == [[0, -1, -1]]
    assert np.isneginf(top.scores[0, 1:]).all()


def test_items_without_training_clicks_are_never_answered_and_rank_last(scorer):
    top = scorer.top_k(SEQUENCES, ITEMS)
    assert top.rows[:, :CLICKED].max() < CLICKED
    assert (top.rows[:, CLICKED:] == -1).all()
    ranks = scorer.ranks(SEQUENCES, np.full(len(SEQUENCES), ITEMS - 1))
    assert (ranks.rank == ITEMS).all()


def test_rank_is_the_last_place_among_equal_scores(scorer):
    top = scorer.top_k(SEQUENCES[:5], CLICKED)
    for sequence, rows, scores in zip(SEQUENCES[:5], top.rows, top.scores, strict=True):
        ranks = scorer.ranks([sequence] * CLICKED, rows)
        at_least = (scores[None, :] >= scores[:, None]).sum(axis=1)
        equal = (scores[None, :] == scores[:, None]).sum(axis=1)
        # float32 scores of a list can be equal where the scorer still tells them apart
        assert (ranks.rank <= at_least).all()
        assert (ranks.rank > at_least - equal).all()
        assert (ranks.ties < equal).all()
        if isinstance(scorer, SRGNNScorer | BlendScorer):
            assert ranks.rank.tolist() == list(range(1, CLICKED + 1))
        else:
            assert np.array_equal(ranks.rank, at_least)
            assert np.array_equal(ranks.ties, equal - 1)


@pytest.mark.parametrize("k", [0, -3, ITEMS + 1])
def test_k_outside_the_catalogue_is_refused(scorer, k):
    with pytest.raises(InputError, match=f"k is {k}"):
        scorer.top_k(SEQUENCES, k)


def test_recommend_names_the_items_of_the_list(recommender):
    answer = recommender.recommend([["item 3", "unheard of", "item 5"]], 10)[0]
    rows = recommender.scorer.top_k([np.array([3, 5])], 10).rows[0]
    assert answer.item_ids == [f"item {row}" for row in rows]
    assert answer.source == "model"


def test_history_without_a_known_item_gets_the_popular_items(recommender):
    popular = np.argsort(-recommender.fallback.clicks, kind="stable")[:5]
    for history in ([], ["unheard of"]):
        answer = recommender.recommend([history], 5)[0]
        assert answer.item_ids == [f"item {row}" for row in popular]
        assert answer.source == "popularity"


def test_only_the_window_counts(recommender):
    long = [f"item {row}" for row in range(30)]
    assert recommender.recommend([long], 20) == recommender.recommend([long[-RULES.max_length :]], 20)
