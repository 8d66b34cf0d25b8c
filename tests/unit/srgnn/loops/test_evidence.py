import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srgnn.loops.evidence import k_largest


@given(st.lists(st.integers(0, 9), min_size=2, max_size=50), st.data())
def test_the_k_largest_are_those_with_the_largest_values_and_of_equal_ones_the_smaller_rows(values, data):
    rows, k = np.random.default_rng(0).permutation(1000)[: len(values)], data.draw(st.integers(1, len(values) - 1))
    chosen, best = k_largest(rows, np.array(values, float), k)
    wanted = sorted(zip(values, rows.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))[:k]
    assert sorted(zip(best.tolist(), chosen.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1])) == wanted
