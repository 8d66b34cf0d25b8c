"""What processors with VNNI alone can do is tested where it is used, with what others do: ``test_products.py``."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import TypingError

from srgnn.loops.instructions import products_of_rows
from srgnn.loops.layout import LANES, ROWS, asking


@njit
def of_rows(items, first, words, session):
    return products_of_rows(items, first, words, session)


@given(width=st.integers(LANES, 5 * LANES), session=st.integers(0, 2), first=st.integers(0, 4), seed=st.integers(0, 99))
def test_a_few_rows_are_multiplied_with_one_session(width, session, first, seed):
    rng = np.random.default_rng(seed)
    codes, items = (rng.integers(-128, 128, (rows, width)).astype(np.int8) for rows in (3, 4 + ROWS))
    wanted = codes[session].astype(np.int64) @ items[first : first + ROWS].T.astype(np.int64)
    assert list(of_rows(items, first, asking(codes, False)[1], session)) == wanted.tolist()


def test_rows_that_are_not_in_one_piece_are_refused():
    with pytest.raises(TypingError, match="rows must follow one another"):
        of_rows(np.ones((LANES, 2 * ROWS), np.int8).T, 0, np.ones((1, LANES), np.int16), 0)
