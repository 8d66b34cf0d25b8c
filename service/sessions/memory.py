"""Sessions in this process: the default, for one worker. They end with the process."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from .store import REMEMBERED_CLICKS, Session


@dataclass(slots=True)
class _Clicks:
    recent: deque[tuple[str | None, str]]
    """(event id, item id), oldest first: as many as the answer to any remembered event needs."""
    total: int
    expires_at: float


class MemorySessionStore:
    """A :class:`SessionStore` of at most ``max_sessions``; past that the one idle longest is dropped."""

    def __init__(
        self,
        *,
        max_clicks: int,
        idle_seconds: float,
        max_sessions: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_clicks = max_clicks
        self._idle_seconds = idle_seconds
        self._max_sessions = max_sessions
        self._clock = clock
        self._sessions: OrderedDict[str, _Clicks] = OrderedDict()  # by last append, so also by expiry

    def __len__(self) -> int:
        return len(self._sessions)

    async def append(self, session_id: str, item_id: str, event_id: str | None = None) -> Session:
        """Add one click; see :class:`SessionStore`."""
        self._drop_expired()
        clicks = self._sessions.get(session_id) or self._begin(session_id)
        since = None if event_id is None else _clicks_since(clicks, event_id)
        if since is not None:
            return self._session(clicks, since)
        clicks.recent.append((event_id, item_id))
        clicks.total += 1
        clicks.expires_at = self._clock() + self._idle_seconds
        self._sessions.move_to_end(session_id)
        return self._session(clicks, since=0)

    async def read(self, session_id: str) -> Session:
        """Return the session as it is now."""
        self._drop_expired()
        clicks = self._sessions.get(session_id)
        return Session() if clicks is None else self._session(clicks, since=0)

    async def delete(self, session_id: str) -> None:
        """Forget the session."""
        self._sessions.pop(session_id, None)

    async def ping(self) -> None:
        """Return: this store always answers."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _begin(self, session_id: str) -> _Clicks:
        if len(self._sessions) >= self._max_sessions:
            self._sessions.popitem(last=False)
        clicks = _Clicks(deque(maxlen=self._max_clicks + REMEMBERED_CLICKS), total=0, expires_at=0.0)
        self._sessions[session_id] = clicks
        return clicks

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._sessions and next(iter(self._sessions.values())).expires_at <= now:
            self._sessions.popitem(last=False)

    def _session(self, clicks: _Clicks, since: int) -> Session:
        """Return the session as it was before its last ``since`` clicks."""
        end = len(clicks.recent) - since
        kept = islice(clicks.recent, max(0, end - self._max_clicks), end)
        return Session(tuple(item for _, item in kept), clicks.total - since)


def _clicks_since(clicks: _Clicks, event_id: str) -> int | None:
    """How many clicks came after the one of this event, or None where it is not remembered."""
    remembered = islice(reversed(clicks.recent), REMEMBERED_CLICKS)
    return next((since for since, (event, _) in enumerate(remembered) if event == event_id), None)
