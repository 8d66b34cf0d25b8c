"""What a session store promises, written once; ``tests/contracts/test_session_store.py`` holds them to it."""

from dataclasses import dataclass
from typing import Protocol

REMEMBERED_CLICKS = 64
"""A repeated ``event_id`` is recognised among this many of a session's last clicks."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it was right after one click."""

    items: tuple[str, ...] = ()
    """The last ``max_clicks`` item ids, oldest first."""
    clicks: int = 0
    """Clicks since the session began, including those no longer kept."""


class SessionStore(Protocol):
    """Raw external item ids by session, so that sessions survive a change of model.

    A session begins with its first click and is gone ``idle_seconds`` after its last one; reading does not
    keep it alive. An unknown, expired or deleted session is the empty ``Session()``: they look the same.
    Session ids, item ids and event ids are any text the caller accepts; event ids are not empty and hold no
    line break.

    Every method raises :class:`srgnn.errors.StoreUnavailable`, and nothing else, when the store does not
    answer. An append that failed so may still have happened (the answer was lost, not the click): a caller
    who repeats it gives both the same ``event_id``.
    """

    async def append(self, session_id: str, item_id: str, event_id: str | None = None) -> Session:
        """Add one click and return the session that ends with it.

        Atomic and ordered: concurrent appends all count, and each answer ends with its own click. At most
        ``max_clicks`` items are returned. An ``event_id`` seen among the session's last ``REMEMBERED_CLICKS``
        clicks changes nothing, not even the expiry (its item is not looked at), and returns exactly what its
        first append returned, also where later clicks have followed. Beyond them it is a new click.
        """
        ...

    async def read(self, session_id: str) -> Session:
        """Return the session as it is now."""
        ...

    async def delete(self, session_id: str) -> None:
        """Forget the session, its event ids included. Deleting an unknown session is no error."""
        ...

    async def ping(self) -> None:
        """Return if the store answers."""
        ...

    async def aclose(self) -> None:
        """Let go of connections; the store is not used afterwards."""
        ...
