import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core.errors import TypingError

from srgnn.int8 import LANES, ROWS, multiply


def multiplied(codes, items):
    out = np.full((len(codes), len(items)), -1, np.int32)
    multiply(codes, items, out)
    return out


@given(
    width=st.integers(LANES, 5 * LANES),
    sessions=st.integers(1, 9),
    rows=st.integers(1, 30).map(lambda n: n * ROWS),
    seed=st.integers(0, 1000),
)
def test_products_are_those_of_whole_numbers(width, sessions, rows, seed):
    rng = np.random.default_rng(seed)
    codes, items = (rng.integers(-128, 128, (n, width)).astype(np.int8) for n in (sessions, rows))
    assert (multiplied(codes, items) == codes.astype(np.int64) @ items.T.astype(np.int64)).all()


@pytest.mark.parametrize("one", [-128, 127])
@pytest.mark.parametrize("other", [-128, 127])
def test_the_largest_numbers_do_not_saturate(one, other):
    codes, items = np.full((1, 1000), one, np.int8), np.full((ROWS, 1000), other, np.int8)
    assert (multiplied(codes, items) == 1000 * one * other).all()


def test_a_matrix_whose_rows_are_not_in_one_piece_is_refused():
    with pytest.raises(TypingError, match="rows must follow one another"):
        multiplied(np.ones((1, LANES), np.int8), np.ones((LANES, 2 * ROWS), np.int8).T)


def test_a_part_of_a_matrix_reads_no_row_beside_it():
    items = np.full((3 * ROWS, LANES + 1), 100, np.int8)
    items[ROWS : 2 * ROWS] = 1
    assert (multiplied(np.ones((2, LANES + 1), np.int8), items[ROWS : 2 * ROWS]) == LANES + 1).all()
