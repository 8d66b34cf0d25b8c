"""A store that does not answer is left alone until it does: else each request would wait for it in vain."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from srgnn.errors import StoreUnavailable

from .store import Answer, Session, SessionStore, StoreSilent

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
"""Between two probes. It doubles from one to the next; requests are answered without the store meanwhile."""
STEADY_CALLS = 20
"""A store that falls silent before it has answered so many is asked no sooner than before: it answers probes, but no
load. One that has answered them was late once, and the pause is the first again."""


class Breaker:
    """A :class:`SessionStore` in front of another. After the first call without an answer it is open: calls fail at
    once, and a task of its own, not a user's request, asks the store until it answers again.

    Only silence opens it. A call that is answered by an error (memory full, a key of another type) costs no waiting.
    ``changed`` is told whenever it opens (True) and closes (False).
    """

    def __init__(self, store: SessionStore, changed: Callable[[bool], None] = lambda opened: None) -> None:
        self._store = store
        self._changed = changed
        self._probing: asyncio.Task[None] | None = None
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._answered = 0
        self._spared = 0

    @property
    def open(self) -> bool:
        """Whether calls fail at once."""
        return self._probing is not None

    async def append(self, session_id: str, item_id: str, event_id: str | None = None) -> Session:
        """Add one click; see :class:`SessionStore`."""
        with self._watched():
            return await self._store.append(session_id, item_id, event_id)

    def remember(self, session_id: str, clicks: int, answer: Answer) -> None:
        """Keep what was answered; see :class:`SessionStore`."""
        if not self.open:
            self._store.remember(session_id, clicks, answer)

    async def read(self, session_id: str) -> Session:
        """Return the session as it is now."""
        with self._watched():
            return await self._store.read(session_id)

    async def delete(self, session_id: str) -> None:
        """Forget the session."""
        with self._watched():
            await self._store.delete(session_id)

    async def ping(self) -> None:
        """Return if the store answers. That says nothing of whether it bears load."""
        with self._watched(load=False):
            await self._store.ping()

    async def aclose(self) -> None:
        """Stop asking, and close the store."""
        if self._probing:
            self._probing.cancel()
            await asyncio.wait({self._probing})
        await self._store.aclose()

    @contextmanager
    def _watched(self, load: bool = True) -> Iterator[None]:
        if self.open:
            self._spared += 1
            raise StoreUnavailable("the session store did not answer and is not asked until it does")
        try:
            yield
            self._answered += load
        except StoreSilent as error:
            if not self.open:  # the first of all that waited
                self._open(error)
            raise

    def _open(self, cause: StoreSilent) -> None:
        if self._answered >= STEADY_CALLS:
            self._pause_seconds = FIRST_PAUSE_SECONDS
        self._answered = self._spared = 0
        self._probing = asyncio.create_task(self._probe())
        self._changed(True)
        logger.error("session store silent, answering without it", extra={"fields": {"cause": str(cause)}})

    async def _probe(self) -> None:
        opened_at = time.monotonic()
        while True:
            await asyncio.sleep(self._pause_seconds)
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
            try:
                await self._store.ping()
            except StoreUnavailable:
                continue
            break
        self._probing = None
        self._changed(False)
        fields = {"seconds": round(time.monotonic() - opened_at, 3), "calls_spared": self._spared}
        logger.warning("session store answers again", extra={"fields": fields})
