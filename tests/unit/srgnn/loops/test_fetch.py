import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from srgnn.loops.fetch import LINE_BYTES, fetch


@njit
def read(rows, place, count):
    fetch(rows, place, count)
    return rows.sum()


@pytest.mark.parametrize("rows", [np.ones((7, 30), np.float32), np.arange(3), np.ones((2, 2, 2))])
def test_memory_is_asked_for_and_nothing_else_happens(rows):
    before = rows.copy()
    assert read(rows, 1, 1) == rows.sum()
    assert "prefetch" in "".join(read.inspect_llvm().values())
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("place", [-1, 3, 10**12])
def test_a_place_that_is_not_there_is_harmless(place):
    assert read(np.ones((3, 2 * LINE_BYTES), np.int8), place, 4) == 6 * LINE_BYTES


def test_rows_that_lie_apart_are_refused():
    with pytest.raises(TypingError, match="follow one another"):
        read(np.ones((4, 4))[:, ::2], 0, 1)
