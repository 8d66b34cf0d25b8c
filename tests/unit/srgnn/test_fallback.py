import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn import fallback as module
from srgnn.fallback import Fallback, transitions

SESSIONS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=8)


def flat(sessions):
    return (
        np.array([row for one in sessions for row in one], dtype=np.int32),
        np.cumsum([0] + [len(one) for one in sessions]),
    )


@given(SESSIONS)
def test_transitions_are_counted_within_sessions_only(sessions):
    found = transitions(*flat(sessions), num_items=10)
    wanted = Counter(pair for one in sessions for pair in itertools.pairwise(one))
    assert {(a, b): n for a, b, n in zip(*(part.tolist() for part in found), strict=True)} == wanted


@given(SESSIONS, st.integers(1, 10), st.sets(st.integers(0, 9)), st.one_of(st.none(), st.integers(0, 9)))
def test_answers_are_ordered_distinct_servable_and_not_excluded(sessions, k, exclude, last):
    answer = Fallback.from_sessions(*flat(sessions), num_items=10).recommend(last, k, exclude)
    clicked = {row for one in sessions for row in one}
    assert len(set(answer.rows)) == len(answer.rows) == len(answer.scores) == min(k, len(clicked - exclude))
    assert set(answer.rows) <= clicked - exclude
    assert answer.scores == sorted(answer.scores, reverse=True)
    assert all(0 < score <= 1 for score in answer.scores)


def test_transitions_come_before_popularity():
    fallback = Fallback.from_sessions(*flat([[1, 2], [1, 2], [1, 3], [0, 0, 0, 0]]), num_items=5)
    assert fallback.recommend(1, 4).rows == [2, 3, 0, 1]
    assert fallback.recommend(1, 4).source == "transitions"
    assert fallback.recommend(1, 1).scores == [pytest.approx(2 / 4)]
    assert fallback.recommend(None, 3).rows == [0, 1, 2]
    assert fallback.recommend(None, 3).source == "popularity"
    assert fallback.recommend(4, 1).source == "popularity"


def test_an_answer_of_transitions_that_are_all_excluded_is_called_popularity():
    fallback = Fallback.from_sessions(*flat([[1, 2]]), num_items=3)
    assert fallback.recommend(1, 2, {2}) == ([1], [pytest.approx(0.5 / 2)], "popularity")


def test_only_the_most_frequent_transitions_are_kept(monkeypatch):
    monkeypatch.setattr(module, "NEXT_ITEMS_KEPT", 2)
    fallback = Fallback.from_sessions(*flat([[0, 1], [0, 2], [0, 2], [0, 3], [0, 3], [0, 3]]), num_items=4)
    assert fallback.next_rows.tolist() == [3, 2]
    assert fallback.offsets.tolist() == [0, 2, 2, 2, 2]
