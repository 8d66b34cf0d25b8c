"""One connection to Redis that any number of calls share.

redis-py lends each call a connection of its own, which costs the event loop several times as much (ARCHITECTURE.md).
Here everything that is ready goes out in one write, and the replies, which come in the order of the commands, are
handed back in that order. Connecting, TLS, authentication and the protocol stay redis-py's.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

Word = str | int

GRACE_SECONDS = 0.005
"""A late call is given up this much later, so that an answer that already lies in the socket is read first: after a
pause of the event loop itself the timers run before the sockets."""


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
        """Send a command whose fate does not matter, behind all calls so far; drop it where no connection is up."""
        if self._link is not None and not self._link.broken and self._link.waiting < self._max_waiting:
            self._link.post(command)

    async def aclose(self) -> None:
        """Close the connection; calls under way fail."""
        if self._link is not None:
            await self._link.aclose()


class _Link:
    """One connection for as long as it lives."""

    def __init__(self, connection: AbstractConnection, timeout_seconds: float) -> None:
        self.broken = False
        self._connection = connection
        self._timeout_seconds = timeout_seconds
        self._unsent: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._sent: deque[asyncio.Future[Any]] = deque()
        self._ready = asyncio.Event()
        self._running = asyncio.create_task(self._run())

    @property
    def waiting(self) -> int:
        return len(self._unsent) + len(self._sent)

    async def call(self, command: tuple[Word, ...]) -> Any:
        future = self._queue(command)
        timer = asyncio.get_running_loop().call_later(self._timeout_seconds, self._late, future)
        try:
            return await future
        finally:
            timer.cancel()

    def post(self, command: tuple[Word, ...]) -> None:
        # Looked at, or asyncio would complain that nobody did.
        self._queue(command).add_done_callback(lambda future: future.exception())

    def _queue(self, command: tuple[Word, ...]) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._unsent.append((pack_command(command), future))  # type: ignore[arg-type]  # any length, not just one
        self._ready.set()
        return future

    async def aclose(self) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})

    async def _run(self) -> None:
        cause: Exception = ConnectionError("the connection was given up")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._connection.connect()  # type: ignore[no-untyped-call]
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send())
                tasks.create_task(self._receive())
        except* (RedisError, OSError, TimeoutError) as errors:
            cause = _first(errors)
        except* RuntimeError as errors:  # uvloop's word for a connection that was closed just now
            cause = ConnectionError(str(_first(errors)))
        finally:
            self._break(cause)
            await self._connection.disconnect(nowait=True)

    async def _send(self) -> None:
        while await self._ready.wait():
            self._ready.clear()
            packed = [command for command, _ in self._unsent]
            self._sent.extend(future for _, future in self._unsent)
            self._unsent.clear()
            await self._connection.send_packed_command(packed, check_health=False)

    async def _receive(self) -> None:
        while True:
            try:
                reply = await self._connection.read_response()
            except ResponseError as error:  # the answer to one command; the connection is fine
                reply = error
            if not self._sent:
                raise ConnectionError("Redis answered a call that nobody made")
            _set(self._sent.popleft(), reply)

    def _late(self, future: "asyncio.Future[Any]") -> None:
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._give_up, future)

    def _give_up(self, future: "asyncio.Future[Any]") -> None:
        if not future.done():
            self._break(TimeoutError(f"no answer within {self._timeout_seconds * 1000:.0f} ms"))
            self._running.cancel()

    def _break(self, cause: Exception) -> None:
        """At once, so that the next call goes to a new connection; closing this one takes its time."""
        self.broken = True
        for future in (*self._sent, *(future for _, future in self._unsent)):
            _set(future, cause)
        self._sent.clear()
        self._unsent.clear()


def _set(future: "asyncio.Future[Any]", result: Any) -> None:
    """Hand over a reply or an error; whoever was cancelled meanwhile does not want it."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    """One exception of a group of groups."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Exception)
    return found
