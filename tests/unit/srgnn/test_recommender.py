import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srgnn.errors import InputError
from srgnn.fallback import Fallback
from srgnn.model import SRGNN, SRGNNConfig
from srgnn.recommender import Recommender
from srgnn.scorer import DenseScorer, SRGNNScorer
from srgnn.sequence import SessionRules
from srgnn.vocabulary import Vocabulary

ITEMS = [f"i{row}" for row in range(30)]
HISTORIES = st.lists(st.lists(st.sampled_from([*ITEMS[:12], "unknown"]), max_size=10), min_size=1, max_size=6)


def build():
    torch.manual_seed(0)
    rules = SessionRules(max_length=4)
    model = SRGNN(SRGNNConfig(hidden_size=8, scoring="cosine", reversed_positions=True), 30, rules.max_length)
    fallback = Fallback.from_sessions(np.array([3, 4, 3, 5, *range(29)]), np.array([0, 4, 33]), 30)
    return Recommender(Vocabulary(ITEMS), rules, SRGNNScorer.of_model(model, fallback.clicks > 0), fallback)


RECOMMENDER = build()


@given(HISTORIES, st.integers(1, 30), st.booleans())
def test_a_batch_is_each_history_alone_and_a_smaller_k_is_a_prefix(histories, k, exclude_seen):
    together = RECOMMENDER.recommend(histories, 30, exclude_seen=exclude_seen)
    for history, whole in zip(histories, together, strict=True):
        (alone,) = RECOMMENDER.recommend([history], k, exclude_seen=exclude_seen)
        assert alone == (whole.item_ids[:k], whole.scores[:k], whole.source)


@given(HISTORIES, st.sets(st.sampled_from([*ITEMS, "unknown"])))
def test_nothing_excluded_seen_or_untrained_is_answered(histories, exclude):
    answers = RECOMMENDER.recommend(histories, 30, exclude=[exclude] * len(histories), exclude_seen=True)
    for history, answer in zip(histories, answers, strict=True):
        left = set(ITEMS) - {"i29"} - exclude - set(history)  # i29 has no training clicks
        assert set(answer.item_ids) == left
        assert answer.scores == sorted(answer.scores, reverse=True)


def test_only_the_last_known_clicks_count():
    long, short, noisy = (
        ["i9", "i1", "i2", "i1", "i3"],
        ["i1", "i2", "i1", "i3"],
        ["i1", "x", "i2", "i1", "i3", "y"],
    )
    answers = RECOMMENDER.recommend([long, short, noisy], 5)
    assert answers[0] == answers[1] == answers[2]
    assert answers[0].source == "model"


def test_without_a_known_click_the_popular_items_answer():
    for history in ([], ["unknown"]):
        (answer,) = RECOMMENDER.recommend([history], 2)
        assert answer.item_ids == ["i3", "i4"]
        assert answer.source == "popularity"


def test_fall_back_needs_no_model():
    assert RECOMMENDER.fall_back(["i4", "unknown"], 2).item_ids == ["i3", "i5"]
    assert RECOMMENDER.fall_back(["i4"], 2).source == "transitions"
    assert RECOMMENDER.fall_back(["i4"], 2, exclude=["i3", "i5"]).item_ids[0] != "i3"
    assert RECOMMENDER.fall_back([], 1) == RECOMMENDER.recommend([[]], 1)[0]


@pytest.mark.parametrize("k", [0, -3, 31])
def test_k_out_of_bounds_names_the_catalogue(k):
    with pytest.raises(InputError, match=f"k is {k}: the catalogue has 30 items"):
        RECOMMENDER.recommend([["i1"]], k)
    with pytest.raises(InputError, match=f"k is {k}"):
        RECOMMENDER.fall_back(["i1"], k)


def test_exclusions_must_match_the_histories():
    with pytest.raises(InputError, match="exclude has 2 entries for 1 histories"):
        RECOMMENDER.recommend([["i1"]], 3, exclude=[[], []])


def test_explain_names_the_clicks_the_model_sees():
    weights = RECOMMENDER.explain(["i9", "i1", "?", "i2", "i1", "i3"])
    assert [item for item, _ in weights] == ["i1", "i2", "i1", "i3"]
    assert RECOMMENDER.explain(["?"]) == []


def test_explain_is_empty_for_a_scorer_without_attention():
    class Flat(DenseScorer):
        def scores(self, sequences):
            return np.zeros((len(sequences), 30), np.float32)

    assert Recommender(Vocabulary(ITEMS), SessionRules(), Flat(30), RECOMMENDER.fallback).explain(["i1"]) == []
