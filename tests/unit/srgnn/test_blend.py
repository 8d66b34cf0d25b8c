import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn.blend import MOST_VOTED, NOTHING_BESIDE, SHARE_UNIT, Beside, BlendScorer, BlendWeights, evidence
from srgnn.errors import ConfigError
from srgnn.habits import NO_HABITS
from srgnn.loops.habits import RARE, shape_of
from srgnn.neighbours import Neighbours, Weights
from srgnn.scorer import SRGNNScorer
from srgnn.session_index import SessionIndex
from tests.conftest import TINY_ITEMS, tiny_fallback, tiny_habits, tiny_model, tiny_neighbours, tiny_trend
from tests.corpora import split_of

PLAIN = Weights()
VOTES, CLICKED, AGE, REPEATS, LAST, HABIT, SCORE = range(7)


def neighbours(sessions, num_items=10, weights=PLAIN):
    split = split_of(sessions)
    return Neighbours(SessionIndex.build(np.asarray(split.items, dtype=np.int64), split.offsets, num_items), weights)


def evidence_of(neighbours, habits, sequence):
    """With a model that scores each item by its row."""
    items = np.arange(len(neighbours.index.item_starts) - 1, dtype=np.float32)[:, None]
    return evidence(neighbours, habits, np.array(sequence), items, np.ones(1))


def told(sessions, sequence, **options):
    """Row -> its features."""
    found = evidence_of(neighbours(sessions, **options), NO_HABITS, sequence)
    return dict(zip(found.rows.tolist(), found.features.tolist(), strict=True))


def test_votes_count_by_their_share():
    found = told([[0, 5], [0, 6], [0, 5]], [0])
    shares = {0: 3 / 6, 5: 2 / 6, 6: 1 / 6}
    assert {row: each[VOTES] for row, each in found.items()} == pytest.approx(
        {row: math.log1p(share / SHARE_UNIT) for row, share in shares.items()}
    )


def test_the_sessions_own_clicks_are_told_with_age_and_number():
    found = told([[9, 8]], [3, 4, 3, 5])
    assert found == {
        3: [0, 1, pytest.approx(math.log(2)), pytest.approx(math.log(2)), 0, RARE, 3],
        4: [0, 1, pytest.approx(math.log(3)), 0, 0, RARE, 4],
        5: [0, 1, 0, 0, 1, RARE, 5],
    }


def test_habits_say_how_likely_the_sessions_own_clicks_are():
    habits = tiny_habits()
    found = evidence_of(Neighbours.nobody(10), habits, [7, 7, 3])  # everything twice: 3 is next
    told = dict(zip(found.rows.tolist(), found.features[:, HABIT].tolist(), strict=True))
    shape = shape_of(habits.older, np.array([7, 7, 3]))
    assert told == {3: habits.odds[shape, 0], 7: habits.odds[shape, 1]}
    assert told[3] > 1 > -1 > told[7]


def test_of_more_items_than_a_shape_has_the_oldest_are_rare():
    found = evidence_of(Neighbours.nobody(40), tiny_habits(), range(30))
    assert found.features[:, HABIT].tolist()[:20] == [RARE] * 20


def test_what_the_model_thinks_of_the_sessions_own_clicks_is_told_of_no_others():
    found = told([[0, 5], [0, 6]], [4, 0])
    assert {row: each[SCORE] for row, each in found.items()} == {4: 4, 0: 0, 5: 0, 6: 0}


def test_votes_that_weigh_nothing_say_nothing():
    found = told([[0, 5], [0, 5]], [0], weights=Weights(idf=True))  # every session holds both
    assert {row: each[VOTES] for row, each in found.items()} == {0: 0, 5: 0}


def test_of_many_voted_items_the_most_voted_count_and_clicks_stay():
    many = MOST_VOTED + 50
    sessions = [[0, row] for row in range(2, many) for _ in range(2)]
    found = told(sessions, [1, 0], num_items=many, weights=Weights(neighbours=1000, sample=1000))
    assert len(found) == MOST_VOTED + 1  # and the one clicked that nobody votes for
    assert found[1][VOTES] == 0
    assert found[1][CLICKED] == 1
    assert found[0][VOTES] > found[2][VOTES] > 0


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=9), st.data())
def test_rows_are_distinct_and_shares_add_up(sessions, data):
    sequence = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))
    found = evidence_of(neighbours(sessions), NO_HABITS, sequence)
    assert len(set(found.rows.tolist())) == len(found.rows)
    assert set(sequence) <= set(found.rows.tolist())
    total = (np.expm1(found.features[:, VOTES]) * SHARE_UNIT).sum()
    assert total == pytest.approx(1 if set(sequence) & {row for session in sessions for row in session} else 0)


def test_a_score_is_the_models_and_the_bonus():
    alone = SRGNNScorer.of_model(tiny_model(), tiny_fallback().clicks > 0, tiny_trend())
    weights = BlendWeights(0.6, -1.0, 0.5, 0.25, 0.3, 0.4, -0.5, 0.7)
    blended = BlendScorer(alone, tiny_neighbours(), weights, tiny_habits())
    sequence = np.array([3, 7, 3])
    before, after = (
        dict(zip(top.rows[0].tolist(), top.scores[0].tolist(), strict=True))
        for top in (alone.top_k([sequence], TINY_ITEMS), blended.top_k([sequence], TINY_ITEMS))
    )
    vector, items = alone.session_vectors([sequence]).numpy()[0], alone.catalogue.matrix.numpy()
    found = evidence(blended.neighbours, blended.habits, sequence, items, vector)
    weighed = found.features @ [0.6, -1.0, 0.5, 0.25, 0.3, 0.4, -0.5]
    bonus = dict(zip(found.rows.tolist(), weighed.tolist(), strict=True))
    wanted = {row: score + bonus.get(row, 0) + 0.7 * tiny_trend()[row] for row, score in before.items()}
    assert after == pytest.approx(wanted, rel=1e-5)


def test_a_model_knows_nothing_of_the_trend_that_stands_beside_it():
    with_trend, without = (
        SRGNNScorer.of_model(tiny_model(), tiny_fallback().clicks > 0, trend) for trend in (tiny_trend(), None)
    )
    found, wanted = (scorer.top_k([np.array([3, 7])], TINY_ITEMS) for scorer in (with_trend, without))
    assert found.rows.tolist() == wanted.rows.tolist()
    assert found.scores.tolist() == wanted.scores.tolist()


def test_without_weight_neighbours_change_nothing():
    alone = SRGNNScorer.of_model(tiny_model(), tiny_fallback().clicks > 0)
    blended = BlendScorer(alone, tiny_neighbours(), BlendWeights())
    sequences = [np.array([3, 7, 3]), np.array([39])]
    assert blended.top_k(sequences, 10).rows.tolist() == alone.top_k(sequences, 10).rows.tolist()
    assert (
        blended.ranks(sequences, np.array([5, 3])).rank.tolist()
        == alone.ranks(sequences, np.array([5, 3])).rank.tolist()
    )


def test_attention_is_the_models():
    alone = SRGNNScorer.of_model(tiny_model(), tiny_fallback().clicks > 0)
    blended = BlendScorer(alone, tiny_neighbours(), BlendWeights())
    assert blended.attention(np.array([1, 2])) == alone.attention(np.array([1, 2]))


def test_a_weight_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="weight votes of the blend is nan"):
        BlendWeights(votes=math.nan)


def test_beside_a_model_stands_what_there_is():
    alone = SRGNNScorer.of_model(tiny_model(), tiny_fallback().clicks > 0)
    own, all_of_it = BlendWeights(habit=0.5), BlendWeights(votes=1.0, habit=0.7)
    both = Beside(tiny_habits(), own, tiny_neighbours(), all_of_it)
    found = {
        "": NOTHING_BESIDE.scorer(alone),
        " + habits": Beside(tiny_habits(), own).scorer(alone),
        " + neighbours": Beside(neighbours=tiny_neighbours(), weights=all_of_it).scorer(alone),
        " + habits + neighbours": both.scorer(alone),
    }
    assert {scorer.search: search for search, scorer in found.items()} == {alone.search + name: name for name in found}
    assert both.scorer(alone).weights == all_of_it
    without = both.scorer(alone, "habits")
    assert (without.search, without.weights) == (f"{alone.search} + habits", own)
    assert both.scorer(alone, "nothing") is alone
