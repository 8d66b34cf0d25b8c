import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn.loops.layout import BYTES, LANES, LOW, NEVER, asking, in_chunks, offsets_of, place_in_chunks

NOTHING = np.empty(0, np.int64)


@given(lanes=st.sampled_from([4, LANES, BYTES]), more=st.integers(0, 2 * BYTES), sessions=st.integers(1, 3))
def test_a_session_is_laid_out_so_that_its_last_chunk_fits_the_last_numbers_of_an_item(lanes, more, sessions):
    d = lanes + more
    codes = np.arange(sessions * d, dtype=np.int16).reshape(sessions, d) + 1
    laid_out = in_chunks(codes, lanes, 0, np.int16(0))
    whole = d // lanes * lanes if d % lanes else d - lanes
    assert (laid_out[:, :whole] == codes[:, :whole]).all()
    last = laid_out[:, whole:]
    repeated = whole + lanes - d  # numbers of the last chunk that one before it has
    assert (last[:, :repeated] == 0).all()
    assert (last[:, repeated:] == codes[:, whole:]).all()


def test_each_number_has_a_place_of_its_own():
    assert [place_in_chunks(j, 6, 4) for j in range(6)] == [0, 1, 2, 3, 6, 7]
    assert [place_in_chunks(j, 8, 4) for j in range(8)] == list(range(8))


def test_vnni_is_asked_by_codes_raised_by_128_and_others_by_wider_ones():
    codes = np.array([[-128, -1, 0, 127] * LANES], np.int8)
    raised, words = asking(codes, True)
    assert raised.view(np.uint8)[0, :4].tolist() == [0, 127, 128, 255]
    assert words.shape == (0, 0)
    raised, words = asking(codes, False)
    assert raised.shape == (0, 0)
    assert words[0, :4].tolist() == [-128, -1, 0, 127]


@pytest.mark.parametrize(("native", "wanted"), [(False, [0, NEVER]), (True, [128 * 2, 128 * -9 + NEVER])])
def test_offsets_take_back_what_codes_were_raised_by(native, wanted):
    items = np.array([[1, 2, -1], [-2, -3, -4]], np.int8)
    assert offsets_of(items, np.array([1]), native).tolist() == wanted
    assert offsets_of(items, NOTHING, native).max() < -LOW
