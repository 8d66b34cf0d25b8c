"""An index from items to the sessions they were clicked in and back: what all neighbourhood methods look up."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .sequence import IntArray

IndexArray = npt.NDArray[np.int32]
AnyIntArray = npt.NDArray[np.integer[Any]]
MOST_CLICKS = np.iinfo(np.int32).max


class SessionIndex(NamedTuple):
    """S sessions, each a set of items with the place of its last click, numbered from the latest (0) to the oldest.

    The order of sessions is the only clock there is: files of protocol ``srgnn`` carry no times.
    """

    session_starts: IndexArray
    """[S + 1]: session s holds clicked[session_starts[s]:session_starts[s + 1]]."""
    clicked: IndexArray
    """[P] catalogue rows, distinct within a session."""
    clicked_at: IndexArray
    """[P] place of the item's last click in the session, from 0."""
    item_starts: IndexArray
    """[V + 1]: item v was clicked in sessions[item_starts[v]:item_starts[v + 1]]."""
    sessions: IndexArray
    """[P] session numbers, of each item the latest session first."""
    sessions_at: IndexArray
    """[P] place of the item's last click in that session."""

    @classmethod
    def build(cls, items: IntArray, offsets: IntArray, num_items: int) -> SessionIndex:
        """From sessions laid end to end, the oldest first: ``items`` [C], ``offsets`` [S + 1].

        Raises InputError for more than 2,147,483,647 clicks.
        """
        if len(items) > MOST_CLICKS:
            raise InputError(f"{len(items):,} clicks are more than neighbours can be looked up in ({MOST_CLICKS:,})")
        lengths = np.diff(offsets)
        session = np.repeat(np.arange(len(lengths))[::-1], lengths)
        place = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
        order = np.lexsort((place, items, session))
        items, session, place = items[order], session[order], place[order]
        last = np.append((np.diff(items) != 0) | (np.diff(session) != 0), True)[: len(items)]
        items, session, place = items[last], session[last], place[last]
        by_item = np.lexsort((session, items))
        arrays = (
            np.searchsorted(session, np.arange(len(lengths) + 1)),
            items,
            place,
            np.searchsorted(items[by_item], np.arange(num_items + 1)),
            session[by_item],
            place[by_item],
        )
        return cls(*(array.astype(np.int32) for array in arrays))

    def fits(self, num_items: int) -> bool:
        """Whether every look-up stays inside, and both directions tell of the same clicks."""
        clicks, sessions = len(self.clicked), self.num_sessions
        return (
            sessions >= 1
            and len(self.item_starts) == num_items + 1
            and len(self.clicked_at) == len(self.sessions) == len(self.sessions_at) == clicks
            and all(
                starts[0] == 0 and starts[-1] == clicks and bool((np.diff(starts) >= 0).all())
                for starts in (self.session_starts, self.item_starts)
            )
            and _within(self.clicked, num_items)
            and _within(self.sessions, sessions)
            and _within(self.clicked_at, MOST_CLICKS)
            and _within(self.sessions_at, MOST_CLICKS)
            and self._directions_agree()
        )

    def _directions_agree(self) -> bool:
        """By a sum over all clicks that does not hang on their order, so that nothing is sorted again."""
        session = np.repeat(np.arange(self.num_sessions), np.diff(self.session_starts))
        item = np.repeat(np.arange(len(self.item_starts) - 1), np.diff(self.item_starts))
        by_session = self._fingerprint(self.clicked, session, self.clicked_at)
        return by_session == self._fingerprint(item, self.sessions, self.sessions_at)

    def _fingerprint(self, items: AnyIntArray, sessions: AnyIntArray, places: AnyIntArray) -> int:
        pair = items.astype(np.uint64) * np.uint64(self.num_sessions) + sessions.astype(np.uint64) + np.uint64(1)
        mixed = (pair ^ (pair >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
        return int((mixed * (2 * places.astype(np.uint64) + np.uint64(1))).sum(dtype=np.uint64))

    @property
    def num_sessions(self) -> int:
        """S."""
        return len(self.session_starts) - 1


def _within(numbers: IndexArray, limit: int) -> bool:
    return bool(((numbers >= 0) & (numbers < limit)).all())


def spans(starts: AnyIntArray, lengths: AnyIntArray) -> IntArray:
    """The indices starts[i], starts[i] + 1, ... (lengths[i] of them), for one i after the other: [sum of lengths]."""
    first = np.cumsum(lengths) - lengths
    indices: IntArray = np.arange(int(lengths.sum())) + np.repeat(starts - first, lengths)
    return indices
