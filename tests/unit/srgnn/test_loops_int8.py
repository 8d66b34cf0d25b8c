import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core.errors import TypingError

from srgnn.loops import BYTES, LANES, ROWS, multiply, surplus_of
from srgnn.scan import int8_is_native

every_way = pytest.mark.parametrize("native", [False, True] if int8_is_native() else [False])


def multiplied(codes, items, native):
    out = np.full((len(codes), len(items)), -1, np.int32)
    multiply(codes, items, surplus_of(items) if native else np.empty(0, np.int32), out)
    return out


@every_way
@given(
    width=st.integers(LANES, 3 * BYTES),
    sessions=st.integers(1, 9),
    rows=st.integers(1, 30).map(lambda n: n * ROWS),
    seed=st.integers(0, 1000),
)
def test_products_are_those_of_whole_numbers(native, width, sessions, rows, seed):
    rng = np.random.default_rng(seed)
    codes, items = (rng.integers(-128, 128, (n, width)).astype(np.int8) for n in (sessions, rows))
    assert (multiplied(codes, items, native) == codes.astype(np.int64) @ items.T.astype(np.int64)).all()


@every_way
@pytest.mark.parametrize("one", [-128, 127])
@pytest.mark.parametrize("other", [-128, 127])
def test_the_largest_numbers_do_not_saturate(native, one, other):
    codes, items = np.full((1, 1000), one, np.int8), np.full((ROWS, 1000), other, np.int8)
    assert (multiplied(codes, items, native) == 1000 * one * other).all()


@every_way
def test_a_matrix_whose_rows_are_not_in_one_piece_is_refused(native):
    with pytest.raises(TypingError, match="rows must follow one another"):
        multiplied(np.ones((1, LANES), np.int8), np.ones((LANES, 2 * ROWS), np.int8).T, native)


@every_way
@pytest.mark.parametrize("width", [LANES + 1, BYTES + 1])
def test_a_part_of_a_matrix_reads_no_row_beside_it(native, width):
    items = np.full((3 * ROWS, width), 100, np.int8)
    items[ROWS : 2 * ROWS] = 1
    assert (multiplied(np.ones((2, width), np.int8), items[ROWS : 2 * ROWS], native) == width).all()
