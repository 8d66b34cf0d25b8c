import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srgnn.loops.evidence import Pairs
from srgnn.loops.search import best_rows, counted, folded


def test_scores_are_counted_around_the_borders_and_not_past_the_last_item():
    scores = np.array([[1.0, 2.0, 3.0, -np.inf, 9.0], [2.0, 2.0, 2.0, 2.0, 9.0]], np.float32)
    above, from_low = counted(scores, 4, np.array([2, 2], np.float32), np.array([2.5, 2], np.float32))
    assert (above.tolist(), from_low.tolist()) == ([1, 0], [2, 4])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30, unique=False), st.integers(1, 8))
def test_of_equal_scores_the_smaller_row_is_the_better_one(rows, k):
    items, vector = np.ones((6, 4), np.float32), np.ones((1, 4))
    rows = sorted(set(rows), reverse=True)
    pairs = Pairs(np.zeros(len(rows), np.int64), np.array(rows), np.array([float(row % 2) for row in rows]))
    best, scores = best_rows(items, vector, pairs, k)
    wanted = sorted(rows, key=lambda row: (-(row % 2), row))[:k]
    assert best[0].tolist() == wanted + [-1] * (k - len(wanted))
    assert scores[0, : len(wanted)].tolist() == [4.0 + row % 2 for row in wanted]


@given(st.lists(st.floats(-9, 9) | st.just(-np.inf), min_size=1, max_size=200), st.integers(1, 10))
def test_what_is_left_of_folded_values_are_some_of_them_the_largest_one_always(values, enough):
    left = folded(np.array(values), enough).tolist()
    assert min(enough, len(values)) <= len(left) <= max(2 * enough, 1), "halved, as long as enough are left"
    assert max(left) == max(values)
    pool = sorted(values)
    for value in left:
        pool.remove(value)  # each at most as often as it was there
