import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srgnn.session_index import SessionIndex, spans
from tests.corpora import split_of

SESSIONS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=8), min_size=1, max_size=10)


def index_of(sessions, num_items=7):
    split = split_of(sessions)
    return SessionIndex.build(np.asarray(split.items, dtype=np.int64), split.offsets, num_items)


@given(SESSIONS)
def test_a_session_holds_each_item_once_where_it_was_clicked_last(sessions):
    index = index_of(sessions)
    assert index.num_sessions == len(sessions)
    for number, session in enumerate(reversed(sessions)):
        span = slice(index.session_starts[number], index.session_starts[number + 1])
        found = dict(zip(index.clicked[span].tolist(), index.clicked_at[span].tolist(), strict=True))
        assert found == {item: place for place, item in enumerate(session)}
        assert span.stop - span.start == len(set(session))


@given(SESSIONS)
def test_an_item_lists_its_sessions_the_latest_first(sessions):
    index = index_of(sessions)
    newest_first = sessions[::-1]
    for item in range(7):
        span = slice(index.item_starts[item], index.item_starts[item + 1])
        numbers = [number for number, session in enumerate(newest_first) if item in session]
        assert index.sessions[span].tolist() == numbers
        last = [max(place for place, other in enumerate(newest_first[n]) if other == item) for n in numbers]
        assert index.sessions_at[span].tolist() == last


@given(SESSIONS)
def test_an_index_fits_its_own_catalogue_and_no_other(sessions):
    index = index_of(sessions)
    assert index.fits(7)
    assert not index.fits(6)
    assert not index.fits(8)


@given(SESSIONS, st.sampled_from(["clicked_at", "sessions_at", "clicked", "sessions"]), st.data())
def test_directions_that_disagree_do_not_fit(sessions, name, data):
    index = index_of(sessions)
    array = getattr(index, name).copy()
    place = data.draw(st.integers(0, len(array) - 1))
    array[place] = (array[place] + 1) % (index.num_sessions if name == "sessions" else 7)
    assert index._replace(**{name: array}).fits(7) == (array[place] == getattr(index, name)[place])


def test_spans_lie_end_to_end():
    assert spans(np.array([7, 2, 0]), np.array([2, 0, 3])).tolist() == [7, 8, 0, 1, 2]
    assert spans(np.array([], dtype=np.int64), np.array([], dtype=np.int64)).tolist() == []
