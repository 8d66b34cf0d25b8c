import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn import loops
from srgnn.loops import counted, k_largest, offer, order, product

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


@given(st.floats(-40.0, 40.0))
def test_exp_is_right_to_the_last_bits(x):
    assert loops.exponential(x) == pytest.approx(math.exp(x), rel=5e-16, abs=0.0)


@pytest.mark.parametrize("x", [-1e308, -math.inf, -40.0, math.nan])
def test_exp_of_less_than_it_knows_is_its_least(x):
    assert loops.exponential(x) == loops.exponential(-40.0)


@pytest.mark.parametrize("x", [1e308, math.inf, 40.0])
def test_exp_of_more_than_it_knows_is_its_most(x):
    assert loops.exponential(x) == loops.exponential(40.0)


def test_scores_are_counted_around_the_borders_and_not_past_the_last_item():
    scores = np.array([[1.0, 2.0, 3.0, -np.inf, 9.0], [2.0, 2.0, 2.0, 2.0, 9.0]], np.float32)
    above, from_low = counted(scores, 4, np.array([2, 2], np.float32), np.array([2.5, 2], np.float32))
    assert (above.tolist(), from_low.tolist()) == ([1, 0], [2, 4])


@given(n=st.integers(0, 13), inner=st.integers(1, 13), outer=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_product_is_numpys(n, inner, outer, seed):
    rng = np.random.default_rng(seed)
    rows, matrix = rng.normal(size=(n, inner)), rng.normal(size=(inner, outer))
    np.testing.assert_allclose(product(rows, matrix), rows @ matrix, rtol=1e-12, atol=1e-13)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=50), st.data())
def test_the_k_largest_are_those_with_the_largest_values_and_of_equal_ones_the_smaller_rows(values, data):
    rows, k = np.random.default_rng(0).permutation(1000)[: len(values)], data.draw(st.integers(1, len(values) - 1))
    chosen, best = k_largest(rows, np.array(values, float), k)
    wanted = sorted(zip(values, rows.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))[:k]
    assert sorted(zip(best.tolist(), chosen.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1])) == wanted
