"""What a session store promises, written once; ``tests/contracts/test_session_store.py`` holds them to it."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from srgnn.errors import InputError, StoreUnavailable

REMEMBERED_CLICKS = 64
"""A repeated ``event_id`` is recognised among this many of a session's last clicks."""


class Answer(NamedTuple):
    """What was answered to a click: the next click of the session judges it."""

    source: str
    items: tuple[str, ...]
    """Item ids of the catalogue, which hold no line break; best first."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it was right after one click."""

    items: tuple[str, ...] = ()
    """The last ``max_clicks`` item ids, oldest first."""
    clicks: int = 0
    """Clicks since the session began, including those no longer kept."""
    new: bool = field(default=False, compare=False)
    """Whether this call added the click; false for a repeat."""
    answered: Answer | None = field(default=None, compare=False)
    """What was answered to the click before this one; None where that is not known, or the click is not new."""


class StoreSilent(StoreUnavailable):
    """The store did not answer at all, so the next call would most likely wait in vain as well."""


class TooManyClicks(InputError):
    """A session got more clicks than it may; this one was not stored."""

    def __init__(self, retry_seconds: float) -> None:
        super().__init__("the session got more clicks than it may: slow down")
        self.retry_seconds = retry_seconds
        """After this time a click is taken again."""


class SessionStore(Protocol):
    """Raw external item ids by session, so that sessions survive a change of model.

    A session begins with its first click and is gone ``idle_seconds`` after its last one; reading does not
    keep it alive. An unknown, expired or deleted session is the empty ``Session()``: they look the same.
    Session ids, item ids and event ids are any text the caller accepts; event ids are not empty and hold no
    line break.

    Every method raises :class:`srgnn.errors.StoreUnavailable` when the store does not answer, and nothing else but
    what it names. An append that failed so may still have happened (the answer was lost, not the click): a caller
    who repeats it gives both the same ``event_id``.
    """

    async def append(self, session_id: str, item_id: str, event_id: str | None = None) -> Session:
        """Add one click and return the session that ends with it.

        Atomic and ordered: concurrent appends all count, and each answer ends with its own click. At most
        ``max_clicks`` items are returned. An ``event_id`` seen among the session's last ``REMEMBERED_CLICKS``
        clicks changes nothing, not even the expiry (its item is not looked at), and returns exactly what its
        first append returned, also where later clicks have followed. Beyond them it is a new click.

        Raises TooManyClicks, and stores nothing, where the session already has ``clicks_per_session`` clicks, or
        ``clicks_per_second`` of them within the last second; for 0 there is no such cap, and repeats do not count.
        """
        ...

    def remember(self, session_id: str, clicks: int, answer: Answer) -> None:
        """Keep what was answered to click number ``clicks``: click number ``clicks + 1`` gets it as ``answered``.

        Costs the caller no waiting, and fails silently: the answer is then not judged.
        """
        ...

    async def read(self, session_id: str) -> Session:
        """Return the session as it is now."""
        ...

    async def delete(self, session_id: str) -> None:
        """Forget the session, its event ids and answers included. Deleting an unknown session is no error."""
        ...

    async def ping(self) -> None:
        """Return if the store answers."""
        ...

    async def aclose(self) -> None:
        """Let go of connections; the store is not used afterwards."""
        ...
