"""An index from items to the sessions they were clicked in and back: what all neighbourhood methods look up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .sequence import IntArray


class SessionIndex(NamedTuple):
    """S sessions, each a set of items with the place of its last click, numbered from the latest (0) to the oldest.

    The order of sessions is the only clock there is: files of protocol ``srgnn`` carry no times.
    """

    session_starts: IntArray
    """[S + 1]: session s holds clicked[session_starts[s]:session_starts[s + 1]]."""
    clicked: IntArray
    """[P] catalogue rows, distinct within a session."""
    clicked_at: IntArray
    """[P] place of the item's last click in the session, from 0."""
    item_starts: IntArray
    """[V + 1]: item v was clicked in sessions[item_starts[v]:item_starts[v + 1]]."""
    sessions: IntArray
    """[P] session numbers, of each item the latest session first."""
    sessions_at: IntArray
    """[P] place of the item's last click in that session."""

    @classmethod
    def build(cls, items: IntArray, offsets: IntArray, num_items: int) -> SessionIndex:
        """From sessions laid end to end, the oldest first: ``items`` [C], ``offsets`` [S + 1]."""
        lengths = np.diff(offsets)
        session = np.repeat(np.arange(len(lengths))[::-1], lengths)
        place = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
        order = np.lexsort((place, items, session))
        items, session, place = items[order], session[order], place[order]
        last = np.append((np.diff(items) != 0) | (np.diff(session) != 0), True)[: len(items)]
        items, session, place = items[last], session[last], place[last]
        by_item = np.lexsort((session, items))
        return cls(
            np.searchsorted(session, np.arange(len(lengths) + 1)),
            items,
            place,
            np.searchsorted(items[by_item], np.arange(num_items + 1)),
            session[by_item],
            place[by_item],
        )

    @property
    def num_sessions(self) -> int:
        """S."""
        return len(self.session_starts) - 1


def spans(starts: IntArray, lengths: IntArray) -> IntArray:
    """The indices starts[i], starts[i] + 1, ... (lengths[i] of them), for one i after the other: [sum of lengths]."""
    first = np.cumsum(lengths) - lengths
    indices: IntArray = np.arange(int(lengths.sum())) + np.repeat(starts - first, lengths)
    return indices
