"""Past its capacity a service that queues answers everybody too late. This one refuses at once what it has no time
for, before a body is read, and answers the rest in time.

How much it works on at a time is bounded. A refusal must cost next to nothing, or refusing takes the time that the
others need: at three times the capacity two of three requests are refused. Hence the short way for a request that
comes in one piece, as nearly all do: 4 us beside the system calls instead of 26 (docs/log.md). Whatever is unusual
goes through :class:`Shedding`.
"""

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import problem
from .headers import HEADERS
from .settings import PREFIX

if TYPE_CHECKING:
    from .state import Service

logger = logging.getLogger(__name__)

LIMITED_PATHS = ("/sessions/", "/recommendations")
"""Operators are let in whatever the load."""

ROOM_AGAIN = 0.5
"""For the burst, with each answer. At 1 a lasting overload would be let in."""


class Load:
    """Requests worked on: ``with load:`` around each. One whose body is still on its way is none yet.

    Past ``limit`` there is room for ``burst`` more: what comes while Redis or the machine stands still for a moment is
    not refused. Every other answer makes room for one again. Where too much comes all the time it is soon used up, and
    nobody waits in a long queue, however fast or slow the machine is.
    """

    def __init__(self, limit: int, burst: int, refused: Counter) -> None:
        self._limit = limit
        self._burst = self._room = float(burst)
        self._under_way = 0
        self._coming = 0
        self._refused = refused
        self._unlogged = 0
        self._logged_at = float("-inf")

    @property
    def full(self) -> bool:
        """Whether the next request is to be refused."""
        return self._under_way >= self._limit and self._room < 1

    def lets_in(self) -> bool:
        """Whether one more that has just arrived may begin, beside all that arrived in the same turn of the event loop.

        Those begin when all that arrived has been looked at. Were they not counted, as many would be let in as arrive,
        and then refused, at several times the price.
        """
        over = self._under_way + self._coming - self._limit
        if over >= 0 and self._room - min(over, self._coming) < 1:
            return False
        if not self._coming:
            asyncio.get_running_loop().call_soon(self._have_begun)
        self._coming += 1
        return True

    def _have_begun(self) -> None:
        """Called between one look at the sockets and the next."""
        self._coming = 0

    def __enter__(self) -> None:
        if self._under_way >= self._limit:
            self._room -= 1
        self._under_way += 1

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1
        self._room = min(self._burst, self._room + ROOM_AGAIN)

    def refuse(self) -> None:
        """Count one request that is refused; a line a second tells how many."""
        self._refused.inc()
        self._unlogged += 1
        now = time.monotonic()
        if now - self._logged_at >= 1:
            fields = {"refused": self._unlogged, "under_way": self._under_way}
            logger.warning("overloaded, refusing requests", extra={"fields": fields})
            self._unlogged, self._logged_at = 0, now


class Shedding:
    """ASGI middleware, the outermost: 503 with Retry-After while ``load`` is full."""

    def __init__(self, app: ASGIApp, load: Load) -> None:
        self.app = app
        self.load = load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if self.load.full and scope["type"] == "http" and scope["path"].startswith(LIMITED_PATHS):
            self.load.refuse()
            await refusal()(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def refusal() -> Any:
    """The answer to a request that there is no time for."""
    detail = f"The service is at its limit ({PREFIX}MAX_UNDER_WAY). Try again in a second, or add workers or replicas."
    return problem(503, detail, title="Overloaded", headers={"Retry-After": "1"})


class SheddingProtocol(HttpToolsProtocol):
    """uvicorn's protocol; while the service is full, it refuses a whole request from its bytes, unparsed."""

    _reading = False
    """Whether the parser is in the middle of a request."""

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if not self._reading and (self.cycle is None or self.cycle.response_complete):
            service: Service = self.app_state["live"].service
            load = service.load
            # What a client does not take off the connection waits in this process: no more of it.
            calm = not service.drain.begun and not self.flow.write_paused
            if not load.lets_in() and calm and is_whole(data):
                load.refuse()
                self.transport.write(_REFUSAL)
                self._unset_keepalive_if_required()
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin to parse a request."""
        self._reading = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Have parsed a request."""
        self._reading = False
        super().on_message_complete()


_LIMITED = re.compile(rb"(?:GET|POST|DELETE) (?:%s)[^ ]* HTTP/1\.1\r\n" % b"|".join(map(str.encode, LIMITED_PATHS)))
_UNUSUAL = re.compile(rb"\r\n(?:[ \t]|transfer-encoding|expect|upgrade|connection:(?! *keep-alive\r))", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length:([^\r]*)", re.IGNORECASE)


def is_whole(data: bytes) -> bool:
    """Whether ``data`` is exactly one plain request of those that are refused under overload."""
    head = data.find(b"\r\n\r\n") + 2
    if head < 2 or not _LIMITED.match(data) or _UNUSUAL.search(data, 0, head):
        return False
    lengths = [length.strip() for length in _LENGTH.findall(data, 0, head)] or [b"0"]
    return len(lengths) == 1 and lengths[0].isdigit() and len(data) == head + 2 + int(lengths[0])


def _refusal_bytes() -> bytes:
    response = refusal()
    headers = b"".join(b"%b: %b\r\n" % header for header in (*response.raw_headers, *HEADERS))
    return b"HTTP/1.1 503 Service Unavailable\r\n" + headers + b"\r\n" + bytes(response.body)


_REFUSAL = _refusal_bytes()
