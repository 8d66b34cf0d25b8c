"""Sessions in this process: the default, for one worker. They end with the process."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from .store import REMEMBERED_CLICKS, Answer, Session, TooManyClicks


class _Click(NamedTuple):
    event_id: str | None
    item_id: str
    at: float
    """Seconds of the store's clock."""


@dataclass(slots=True)
class _Clicks:
    recent: deque[_Click]
    """Oldest first: as many as the answer to any remembered event needs."""
    total: int
    expires_at: float
    answered: tuple[int, Answer] | None = None
    """The number of a click, and what was answered to it."""


class MemorySessionStore:
    """A :class:`SessionStore` of at most ``max_sessions``; past that the one idle longest is dropped."""

    def __init__(
        self,
        *,
        max_clicks: int,
        idle_seconds: float,
        max_sessions: int,
        clicks_per_second: int = 0,
        clicks_per_session: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_clicks = max_clicks
        self._idle_seconds = idle_seconds
        self._max_sessions = max_sessions
        self._clicks_per_second = clicks_per_second
        self._clicks_per_session = clicks_per_session
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
        now = self._clock()
        self._check_pace(clicks, now)
        clicks.recent.append(_Click(event_id, item_id, now))
        clicks.total += 1
        clicks.expires_at = now + self._idle_seconds
        self._sessions.move_to_end(session_id)
        return replace(self._session(clicks, since=0), new=True, answered=_answer_to(clicks, clicks.total - 1))

    def remember(self, session_id: str, clicks: int, answer: Answer) -> None:
        """Keep what was answered; see :class:`SessionStore`."""
        if session := self._sessions.get(session_id):
            session.answered = clicks, answer

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

    def _check_pace(self, clicks: _Clicks, now: float) -> None:
        if 0 < self._clicks_per_session <= clicks.total:
            raise TooManyClicks(clicks.expires_at - now)
        if 0 < self._clicks_per_second <= len(clicks.recent):
            passed = now - clicks.recent[-self._clicks_per_second].at
            if passed < 1:
                raise TooManyClicks(1 - passed)

    def _session(self, clicks: _Clicks, since: int) -> Session:
        """Return the session as it was before its last ``since`` clicks."""
        end = len(clicks.recent) - since
        kept = islice(clicks.recent, max(0, end - self._max_clicks), end)
        return Session(tuple(click.item_id for click in kept), clicks.total - since)


def _clicks_since(clicks: _Clicks, event_id: str) -> int | None:
    """How many clicks came after the one of this event, or None where it is not remembered."""
    remembered = islice(reversed(clicks.recent), REMEMBERED_CLICKS)
    return next((since for since, click in enumerate(remembered) if click.event_id == event_id), None)


def _answer_to(clicks: _Clicks, number: int) -> Answer | None:
    known, answer = clicks.answered or (0, None)
    return answer if known == number else None
