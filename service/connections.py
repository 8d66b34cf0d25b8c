"""What uvicorn leaves unbounded: how many connections there are, how long they take and how much they send.

uvicorn reads a head of any length, waits for its end for ever, and queues every request of a pipeline: without limits
one machine that sends slowly or much takes the memory or all the file descriptors, long before any key is looked at.
"""

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, cast

import orjson

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

    @property
    def _service(self) -> "Service":
        return cast("Live", self.app_state["live"]).service

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there is room for it."""
        settings = self._service.settings
        if len(self.connections) >= settings.max_connections:
            self.transport = transport
            return self._close(TOO_MANY)
        super().connection_made(transport)
        self._max_request_bytes = MAX_HEAD_BYTES + 2 * settings.max_body_bytes  # a body in chunks is longer
        self._look_seconds = settings.transfer_seconds / LOOKS
        self._timer = self.loop.call_later(self._look_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count, and parse."""
        self._arriving = len(data)
        self._received += len(data)
        super().data_received(data)
        if not self._reading:
            self._received = self._others = 0
        elif not self.transport.is_closing():
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
            self._timer = self.loop.call_later(self._look_seconds, self._look)
        else:
            # An answer to no request would be taken for that to the next one.
            self._close(TOO_SLOW, tell=self._reading)

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
        self.transport.write(refusal.answer)
        self.transport.close()

    def _can_be_told(self) -> bool:
        """Whether an answer from here would arrive, and be taken for the one to the request that arrives."""
        if self.transport.is_closing():
            return False
        if self.flow is None or self.cycle is None:
            return True
        if self.flow.write_paused or self.pipeline:
            return False
        return self.cycle.response_complete if self._in_head() else not self.cycle.response_started
