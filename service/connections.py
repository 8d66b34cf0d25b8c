"""What uvicorn leaves unbounded: how many connections there are, how long they take and how much they send.

uvicorn reads a head of any length, waits for its end for ever, and queues every request of a pipeline: without limits
one machine that sends slowly or much takes the memory or all the file descriptors, long before any key is looked at.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast

import orjson
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from .errors import PROBLEM_JSON
from .headers import HEADERS
from .overload import SheddingProtocol
from .settings import PREFIX

if TYPE_CHECKING:
    from .state import Live, Service

MAX_HEAD_BYTES = 32_768
"""Of a request line with its headers: what nginx lets through."""
MAX_HEADERS = 100
MAX_PIPELINED = 8
"""Requests of one connection that may wait for the answer to an earlier one."""
LOOKS = 5
"""How often a client is looked at within the seconds it has."""
LINGER_SECONDS = 2
"""How long a client that was refused may still send, unread, what it had begun to."""
MAX_LINGERING = 50
"""Connections of this process that may wait for that; past it they are closed at once. Open files are bounded."""


class _Refusal(NamedTuple):
    """Why a connection is closed, for the metric, and what its client is told if it can still be told."""

    reason: str
    answer: bytes


def _refusal(reason: str, status: int, detail: str, *headers: tuple[bytes, bytes]) -> _Refusal:
    """A whole answer, for where there is no application to make one."""
    phrase = HTTPStatus(status).phrase
    body = orjson.dumps({"type": "about:blank", "title": phrase, "status": status, "detail": detail})
    lines = (
        (b"content-type", PROBLEM_JSON.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *headers,
        *HEADERS,
    )
    head = [f"HTTP/1.1 {status} {phrase}".encode(), *(b"%b: %b" % line for line in lines)]
    return _Refusal(reason, b"\r\n".join([*head, b"", body]))


MALFORMED = _refusal("malformed", 400, "This is not HTTP/1.1.")
TOO_SLOW = _refusal("too_slow", 408, f"The request took longer than {PREFIX}TRANSFER_SECONDS to arrive.")
TOO_LARGE = _refusal("too_large", 413, f"The request is far larger than {PREFIX}MAX_BODY_BYTES.")
PIPELINED = _Refusal("pipelined", b"")  # never told: an earlier request still waits for its answer
HEAD_TOO_LARGE = _refusal(
    "head_too_large", 431, f"A head may have {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers: send fewer."
)
TOO_MANY = _refusal(
    "too_many",
    503,
    f"All {PREFIX}MAX_CONNECTIONS are taken; try again in a second.",
    (b"retry-after", b"1"),
)


class BoundedHttp(SheddingProtocol):
    """uvicorn's protocol for one connection, within the service's settings."""

    _received = 0
    """Bytes since the request under way began, with ``_others`` that came in one piece with its first ones."""
    _others = 0
    _arriving = 0
    """Bytes being parsed."""
    _refused = MALFORMED
    """What to tell where the parser stops."""
    _timer: asyncio.TimerHandle | None = None
    _looks = 0
    """How many in a row found the same request waiting for its client."""
    _cycle_seen: object = None
    """The request of the last look."""
    _answering: RequestResponseCycle | None = None
    """The request worked on; ``cycle`` is the last one of a pipeline."""
    _lingering: ClassVar[set["BoundedHttp"]] = set()
    """Those that were told why they are closed, and wait for their client to close."""
    on_lost: Callable[[], None] | None = None
    """Called at the end of the connection."""

    @property
    def _service(self) -> "Service":
        return cast("Live", self.app_state["live"]).service

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there is room for it."""
        settings = self._service.settings
        self._max_request_bytes = MAX_HEAD_BYTES + 2 * settings.max_body_bytes  # a body in chunks is longer
        self._look_seconds = settings.transfer_seconds / LOOKS
        super().connection_made(transport)
        if len(self.connections) - len(self._lingering) > settings.max_connections:
            return self._close(TOO_MANY)
        self._set_timer(self._look_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._timer:
            self._timer.cancel()
        self._lingering.discard(self)
        self._answer_no_more()
        super().connection_lost(exc)
        if self.on_lost:
            self.on_lost()

    def shutdown(self) -> None:
        """End what is not worked on; a connection left open would keep uvloop from closing."""
        if self in self._lingering:
            self._linger_no_more()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Count, and parse."""
        self._arriving = len(data)
        self._received += len(data)
        if self in self._lingering:
            return self._discard()
        super().data_received(data)
        if not self._reading:
            self._received = self._others = 0
        elif not self._ended():
            self._check_size()

    def _check_size(self) -> None:
        """Of a request that has begun; what arrived with another one before it is not held against it."""
        most, refusal = (MAX_HEAD_BYTES, HEAD_TOO_LARGE) if self._in_head() else (self._max_request_bytes, TOO_LARGE)
        if self._received - self._others > most:
            self._close(refusal)

    def on_headers_complete(self) -> None:
        """Start on a request, or stop parsing: what is raised here comes back to ``send_400_response``."""
        if len(self.headers) > MAX_HEADERS or (self._received > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES):
            self._refused = HEAD_TOO_LARGE
        elif len(self.pipeline) >= MAX_PIPELINED:
            self._refused = PIPELINED
        else:
            return super().on_headers_complete()
        raise ValueError(self._refused.reason)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Begin to work on a request."""
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        """Have parsed a request; whatever came with its last bytes may be of the next one."""
        super().on_message_complete()
        self._received = self._others = self._arriving

    def send_400_response(self, msg: str) -> None:
        """Tell what was wrong in the form of all our answers."""
        self._close(self._refused)

    def _in_head(self) -> bool:
        """Whether the request that arrives is still to be started on."""
        return self.cycle is None or self.cycle.scope is not self.scope

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _look(self) -> None:
        """Count how long nothing but the client keeps one request from its end; a new request counts anew."""
        self._looks = self._looks + 1 if self._waits_for_client() and self.cycle is self._cycle_seen else 0
        self._cycle_seen = self.cycle
        if self._looks < LOOKS:
            self._set_timer(self._look_seconds, self._look)
        else:
            # An answer to no request would be taken for that to the next one.
            self._close(TOO_SLOW, tell=self._reading)

    def _set_timer(self, seconds: float, then: Callable[[], None]) -> None:
        """The only one of this connection."""
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, then)

    def _waits_for_client(self) -> bool:
        if self.flow.write_paused or self.transport.is_closing():
            return True
        if self.timeout_keep_alive_task is not None:
            return False  # idle between two requests, of which uvicorn takes care
        at_work = self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
        return not at_work and not self.flow.read_paused

    def _close(self, refusal: _Refusal, *, tell: bool = True) -> None:
        self._service.metrics.connections_closed(refusal.reason).inc()
        if not (tell and self._can_be_told()):
            return self.transport.abort()
        self._answer_no_more()
        self.transport.write(refusal.answer)
        if len(self._lingering) < MAX_LINGERING:
            self._linger()
        else:
            self.transport.close()

    def _answer_no_more(self) -> None:
        """Let the request worked on write nothing more; uvicorn tells only the last one of a pipeline."""
        if self._answering:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _linger(self) -> None:
        """Close when the client has: closed before it has sent all, it would be reset and might never read why."""
        self._lingering.add(self)
        self._received = self._looks = 0
        self.transport.write_eof()
        self.flow.resume_reading()
        self._set_timer(LINGER_SECONDS, self._linger_no_more)

    def _discard(self) -> None:
        if self._received > self._max_request_bytes:
            self._linger_no_more()

    def _linger_no_more(self) -> None:
        """Close, and cut off a client that has not taken its answers by the time it has for that."""
        self._lingering.discard(self)
        self.transport.close()
        self._set_timer(self._look_seconds, self._look)

    def _ended(self) -> bool:
        """Whether the connection is about to be closed."""
        return self.transport.is_closing() or self in self._lingering

    def _can_be_told(self) -> bool:
        """Whether an answer from here would arrive, and be taken for the one to the request that arrives."""
        if self._ended():
            return False
        if self.cycle is None:
            return True
        if self.flow.write_paused or self.pipeline:
            return False
        return self.cycle.response_complete if self._in_head() else not self.cycle.response_started
