import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srgnn.loops.heap import k_largest, keep, offer, order

ENTRIES = st.lists(st.tuples(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), st.integers(0, 5)), max_size=30)


@given(ENTRIES, st.integers(0, 8))
def test_the_best_entries_are_held_and_sorted(entries, size):
    values, keys = np.empty(size), np.empty(size, np.int64)
    held = 0
    for value, key in entries:
        held = offer(values, keys, held, value, key)
        if held:
            assert (-values[0], keys[0]) == max(zip(-values[:held], keys[:held], strict=True))
    order(values, keys, held)
    best = sorted(entries, key=lambda entry: (-entry[0], entry[1]))[:size]
    assert list(zip(values[:held].tolist(), keys[:held].tolist(), strict=True)) == best


@given(st.lists(st.floats(-9, 9), max_size=60), st.integers(1, 20))
def test_the_largest_values_are_kept_with_the_least_of_them_in_front(values, size):
    largest = np.full(size, -np.inf)
    for value in values:
        keep(largest, value)
        assert largest[0] == largest.min()
    assert sorted(largest) == sorted([*values, *[-np.inf] * size], reverse=True)[:size][::-1]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=50), st.data())
def test_the_k_largest_are_those_with_the_largest_values_and_of_equal_ones_the_smaller_rows(values, data):
    rows, k = np.random.default_rng(0).permutation(1000)[: len(values)], data.draw(st.integers(1, len(values) - 1))
    chosen, best = k_largest(rows, np.array(values, float), k)
    wanted = sorted(zip(values, rows.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))[:k]
    assert sorted(zip(best.tolist(), chosen.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1])) == wanted
