import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn.loops.encoder import exponential, product


@given(st.floats(-40.0, 40.0))
def test_exp_is_right_to_the_last_bits(x):
    assert exponential(x) == pytest.approx(math.exp(x), rel=5e-16, abs=0.0)


@pytest.mark.parametrize("x", [-1e308, -math.inf, -40.0, math.nan])
def test_exp_of_less_than_it_knows_is_its_least(x):
    assert exponential(x) == exponential(-40.0)


@pytest.mark.parametrize("x", [1e308, math.inf, 40.0])
def test_exp_of_more_than_it_knows_is_its_most(x):
    assert exponential(x) == exponential(40.0)


@given(n=st.integers(0, 13), inner=st.integers(1, 13), outer=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_product_is_numpys(n, inner, outer, seed):
    rng = np.random.default_rng(seed)
    rows, matrix = rng.normal(size=(n, inner)), rng.normal(size=(inner, outer))
    np.testing.assert_allclose(product(rows, matrix), rows @ matrix, rtol=1e-12, atol=1e-13)
