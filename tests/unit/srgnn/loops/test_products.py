import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import TypingError

from srgnn.loops.instructions import FEWER
from srgnn.loops.layout import BYTES, GROUP, LANES, LOW, ROWS, Asking, Searched, asking, offsets_of
from srgnn.loops.products import MANY, best_of_groups, score_rows
from srgnn.scan import int8_is_native

every_way = pytest.mark.parametrize("native", [False, True] if int8_is_native() else [False])
NOTHING = np.empty(0, np.int64)


def narrowest(native):
    return BYTES if native else LANES


def searched_and_asking(codes, items, native, unanswerable=NOTHING):
    return Searched(items, offsets_of(items, unanswerable, native)), Asking(*asking(codes, native))


@njit
def scored(searched, asking, session, first, out):
    score_rows(searched, asking, session, first, out)


def products(codes, items, native, unanswerable=NOTHING):
    """Of every session and every row, by the function for one session and some rows."""
    out = np.full((len(codes), len(items)), -1, np.int32)
    searched, asked = searched_and_asking(codes, items, native, unanswerable)
    for session in range(len(codes)):
        scored(searched, asked, session, 0, out[session : session + 1])
    return out


def bests(codes, items, native, unanswerable=NOTHING, first=0, groups=None):
    searched, asked = searched_and_asking(codes, items, native, unanswerable)
    return best_of_groups(*searched, *asked, first, len(items) // GROUP - first if groups is None else groups)


def random(seed, width, *lengths):
    rng = np.random.default_rng(seed)
    return [rng.integers(-128, 128, (length, width)).astype(np.int8) for length in lengths]


def true_products(codes, items):
    return codes.astype(np.int64) @ items.T.astype(np.int64)


@every_way
@given(
    width=st.integers(0, 2 * BYTES),
    sessions=st.integers(1, 9),
    rows=st.integers(1, 30).map(lambda n: n * ROWS),
    seed=st.integers(0, 1000),
)
def test_products_are_those_of_whole_numbers(native, width, sessions, rows, seed):
    codes, items = random(seed, narrowest(native) + width, sessions, rows)
    assert (products(codes, items, native) == true_products(codes, items)).all()


@every_way
@given(
    width=st.integers(0, 2 * BYTES),
    sessions=st.sampled_from([1, MANY - 1, MANY, FEWER, FEWER + 1, LANES, LANES + 1, LANES + FEWER, 3 * LANES]),
    groups=st.integers(1, 5),
    first=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_the_best_of_a_group_is_the_largest_of_its_products(native, width, sessions, groups, first, seed):
    codes, items = random(seed, narrowest(native) + width, sessions, (first + groups) * GROUP)
    wanted = true_products(codes, items).reshape(sessions, -1, GROUP).max(axis=2)
    assert (bests(codes, items, native, first=first, groups=groups) == wanted[:, first:]).all()


@every_way
@pytest.mark.parametrize("one", [-128, 127])
@pytest.mark.parametrize("other", [-128, 127])
def test_the_largest_numbers_do_not_saturate(native, one, other):
    codes, items = np.full((LANES, 4096), one, np.int8), np.full((GROUP, 4096), other, np.int8)
    assert (products(codes[:1], items, native) == 4096 * one * other).all()
    for sessions in (1, FEWER, LANES):
        assert (bests(codes[:sessions], items, native) == 4096 * one * other).all()


@every_way
@pytest.mark.parametrize("one", [-128, 127])
@pytest.mark.parametrize("sessions", [1, FEWER, LANES])
def test_what_may_not_be_answered_is_below_every_answer(native, one, sessions):
    codes, items = np.full((sessions, 4096), one, np.int8), np.full((2 * GROUP, 4096), one, np.int8)
    unanswerable = np.array([0, *range(GROUP, 2 * GROUP)])
    made = products(codes, items, native, unanswerable)
    assert (made[:, unanswerable] <= LOW).all()
    assert (made[:, 1:GROUP] == 4096 * one * one).all()
    best = bests(codes, items, native, unanswerable)
    assert (best[:, 0] == 4096 * one * one).all()
    assert (best[:, 1] <= LOW).all()


@every_way
@pytest.mark.parametrize("sessions", [1, FEWER, LANES])
def test_a_matrix_whose_rows_are_not_in_one_piece_is_refused(native, sessions):
    width = narrowest(native)
    with pytest.raises(TypingError, match="rows must follow one another"):
        bests(np.ones((sessions, width), np.int8), np.ones((width, 2 * GROUP), np.int8).T, native)


@every_way
@pytest.mark.parametrize("sessions", [1, FEWER, LANES])
@pytest.mark.parametrize("more", [0, 1, 2, 3])
def test_a_part_of_a_matrix_reads_no_row_beside_it(native, sessions, more):
    width = narrowest(native) + more
    items = np.full((3 * GROUP, width), 100, np.int8)
    items[GROUP : 2 * GROUP] = 1
    assert (bests(np.ones((sessions, width), np.int8), items, native, first=1, groups=1) == width).all()


def test_floats_are_scored_one_by_one():
    items = np.arange(8 * 3, dtype=np.float32).reshape(8, 3)
    offsets = np.zeros(GROUP, np.int32)
    offsets[2] = 1
    out, vectors = np.zeros((1, 12), np.float32), np.array([[9, 9, 9], [1, 0, 2]], np.float32)
    scored(Searched(items, offsets), Asking(np.empty((0, 0), np.int8), vectors), 1, 0, out)
    wanted = items @ vectors[1]
    assert out[0, :2].tolist() == wanted[:2].tolist()
    assert out[0, 3:8].tolist() == wanted[3:].tolist()
    assert np.isneginf(out[0, [2, 8, 9, 10, 11]]).all()
