"""One connection to Redis that any number of calls share.

redis-py lends each call a connection of its own, which costs the event loop several times as much (ARCHITECTURE.md).
Here everything that is ready goes out in one write, and the replies, which come in the order of the commands, are
handed back in that order, as the bytes arrive. Connecting, TLS, authentication and what an error means stay redis-py's.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from hiredis import Reader, pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import InvalidResponse, RedisError

Word = str | int

GRACE_SECONDS = 0.005
"""A late call is given up this much later, so that an answer that already lies in the socket is read first: after a
pause of the event loop itself the timers run before the sockets."""

POST_SECONDS = 0.002
"""A command that nobody waits for goes out with the next one that somebody does, or this much later."""

INCOMPLETE = object()
"""What the reader gives while a reply is not there as a whole; None and False are replies."""


class Pipeline:
    """Calls share one connection, made on first use and anew after it broke. Nothing is sent twice.

    A call that gets no answer within ``timeout_seconds``, connecting included, breaks the connection: whatever else
    waits on it is behind that call in Redis' own order. At most ``max_waiting`` calls wait at a time.
    """

    def __init__(
        self, make_connection: Callable[[], AbstractConnection], *, timeout_seconds: float, max_waiting: int
    ) -> None:
        self._make_connection = make_connection
        self._timeout_seconds = timeout_seconds
        self._max_waiting = max_waiting
        self._link: _Link | None = None

    async def call(self, *command: Word) -> Any:
        """Redis' reply. Raises RedisError, OSError or TimeoutError."""
        if self._link is None or self._link.broken:
            self._link = _Link(self._make_connection(), self._timeout_seconds)
        if self._link.waiting >= self._max_waiting:
            raise ConnectionError(f"{self._max_waiting} calls are waiting already")
        return await self._link.call(command)

    def post(self, *command: Word) -> None:
        """Send a command whose fate does not matter, behind all calls so far and before those to come; drop it where
        no connection is up."""
        if self._link is not None and not self._link.broken and self._link.waiting < self._max_waiting:
            self._link.post(command)

    async def aclose(self) -> None:
        """Close the connection; calls under way fail."""
        if self._link is not None:
            await self._link.aclose()


class _Link(asyncio.Protocol):
    """One connection for as long as it lives: redis-py makes it, then its bytes come here."""

    def __init__(self, connection: AbstractConnection, timeout_seconds: float) -> None:
        self.broken = False
        self._connection = connection
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._about_to_send = False
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.WriteTransport | None = None
        self._running = self._loop.create_task(self._run())

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def call(self, command: tuple[Word, ...]) -> Any:
        future = self._queue(command)
        if not self._about_to_send:
            self._about_to_send = True
            self._loop.call_soon(self._send)
        timer = self._loop.call_later(self._timeout_seconds, self._late, future)
        try:
            return await future
        finally:
            timer.cancel()

    def post(self, command: tuple[Word, ...]) -> None:
        if not self._unsent:
            self._loop.call_later(POST_SECONDS, self._send)
        # Looked at, or asyncio would complain that nobody did.
        self._queue(command).add_done_callback(lambda future: future.exception())

    def _queue(self, command: tuple[Word, ...]) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(future)
        self._unsent.append(pack_command(command))  # type: ignore[arg-type]  # any length, not just one
        return future

    async def aclose(self) -> None:
        self._send()
        self._running.cancel()
        await asyncio.wait({self._running})

    async def _run(self) -> None:
        cause: Exception = ConnectionError("the connection was given up")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._connection.connect()  # type: ignore[no-untyped-call]
            self._take_over()
            await asyncio.Event().wait()  # until it breaks
        except (RedisError, OSError, TimeoutError) as error:
            cause = error
        finally:
            self._break(cause)
            await self._connection.disconnect(nowait=True)

    def _take_over(self) -> None:
        """From here on what Redis sends is read by :meth:`data_received`, not by redis-py."""
        connection = self._connection
        self._reader = Reader(
            protocolError=InvalidResponse,
            replyError=connection._parser.parse_error,
            encoding="utf-8" if connection.encoder.decode_responses else None,
            notEnoughData=INCOMPLETE,
        )
        assert connection._writer is not None
        self._transport = connection._writer.transport
        self._transport.set_protocol(self)
        self._send()

    def _send(self) -> None:
        self._about_to_send = False
        if self._transport is not None and self._unsent:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not INCOMPLETE:
                self._answer(reply)
        except (RedisError, OSError, UnicodeError) as error:
            self._fail(error)

    def _answer(self, reply: Any) -> None:
        if isinstance(reply, NoConnection):  # Redis is loading, or does not know us: not the answer to one command
            raise reply
        if not self._waiting:
            raise ConnectionError("Redis answered a call that nobody made")
        _set(self._waiting.popleft(), reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("Redis closed the connection"))

    def _late(self, future: "asyncio.Future[Any]") -> None:
        self._loop.call_later(GRACE_SECONDS, self._give_up, future)

    def _give_up(self, future: "asyncio.Future[Any]") -> None:
        if not future.done():
            self._fail(TimeoutError(f"no answer within {self._timeout_seconds * 1000:.0f} ms"))

    def _fail(self, cause: Exception) -> None:
        self._break(cause)
        self._running.cancel()

    def _break(self, cause: Exception) -> None:
        """At once, so that the next call goes to a new connection."""
        self.broken = True
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        for future in self._waiting:
            _set(future, cause)
        self._waiting.clear()
        self._unsent.clear()


def _set(future: "asyncio.Future[Any]", result: Any) -> None:
    """Hand over a reply or an error; whoever was cancelled meanwhile does not want it."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
