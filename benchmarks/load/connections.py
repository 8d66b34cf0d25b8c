"""Keep-alive connections with one request in flight each, opened as they are needed.

Plain sockets and a selector: an event loop with transports and tasks would cost twice the processor time a request.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

from . import wire
from .traffic import Call

IDLE_SECONDS = 3.0
"""An idle connection is closed here before the service does (uvicorn: 5 s), lest a request crosses that."""
READ_BYTES = 65_536

Answered = Callable[[Call, bytes, float], None]
"""(call, the whole answer, when it was complete on the monotonic clock)."""
Failed = Callable[[Call, str], None]
"""(call, reason)."""


class Connection:
    """One connection; ``call`` is what it waits for. The selector calls it with what its socket is ready for."""

    __slots__ = ("_pool", "_received", "_selector", "_socket", "_unsent", "call", "used")

    def __init__(self, pool: "Pool", selector: BaseSelector, address: tuple[str, int], call: Call) -> None:
        self._pool, self._selector = pool, selector
        self.call: Call | None = call
        call.sent = time.monotonic()
        self.used = 0.0
        self._received, self._unsent = b"", call.request
        self._socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.connect_ex(address)  # how that went is known when the socket can be written to
        selector.register(self._socket, EVENT_WRITE, self)

    def send(self, call: Call) -> None:
        """Send a request; the connection must be free."""
        self.call = call
        call.sent = time.monotonic()
        try:
            sent = self._socket.send(call.request)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            return self.lose(os.strerror(error.errno or 0))
        if sent < len(call.request):
            self._unsent = call.request[sent:]
            self._selector.modify(self._socket, EVENT_READ | EVENT_WRITE, self)
        return None

    def __call__(self, ready: int) -> None:
        if ready & EVENT_WRITE and not self._write():
            return
        if ready & EVENT_READ:
            self._read()

    def lose(self, reason: str) -> None:
        """Close it; a call under way fails."""
        call, self.call = self.call, None
        self.close()
        self._pool.lost(self, call, reason)

    def close(self) -> None:
        """Close it."""
        if self._socket.fileno() >= 0:
            self._selector.unregister(self._socket)
            self._socket.close()

    def _write(self) -> bool:
        if number := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.lose(f"cannot connect: {os.strerror(number)}")
            return False
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return True
        except OSError as error:
            self.lose(os.strerror(error.errno or 0))
            return False
        if not self._unsent:
            self._selector.modify(self._socket, EVENT_READ, self)
        return True

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            return self.lose(os.strerror(error.errno or 0))
        if not data:
            return self.lose("connection closed by the service")
        if self._received:
            data = self._received + data
        try:
            size = wire.answer_size(data)
        except ValueError as error:
            return self.lose(str(error))
        if not size or len(data) < size:
            self._received = data
            return None
        self._received = b""
        call, self.call = self.call, None
        if call is None or len(data) > size:  # whose answer would the next one be?
            self.call = call
            return self.lose("more than one answer to one request")
        self.used = time.monotonic()
        self._pool.done(self, call, data)
        return None


class Pool:
    """At most ``limit`` connections; a call that finds none free waits here, its clock running."""

    def __init__(
        self, selector: BaseSelector, address: tuple[str, int], limit: int, answered: Answered, failed: Failed
    ) -> None:
        self._selector, self._address, self._limit = selector, address, limit
        self._answered, self._failed = answered, failed
        self._all: set[Connection] = set()
        self._free: deque[Connection] = deque()  # the longest unused first, so that all workers get their share
        self._waiting: deque[Call] = deque()
        self.waited = 0
        """Calls that found all connections busy."""
        self.opened = 0
        """Connections opened so far."""

    def send(self, call: Call) -> None:
        """Send it over a free or a new connection, or as soon as one is free."""
        if connection := self._take():
            connection.send(call)
        elif len(self._all) < self._limit:
            self._open(call)
        else:
            self._waiting.append(call)
            self.waited += 1

    def done(self, connection: Connection, call: Call, answer: bytes) -> None:
        """A connection has its answer and is free."""
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._free.append(connection)
        self._answered(call, answer, connection.used)

    def lost(self, connection: Connection, call: Call | None, reason: str) -> None:
        """A connection is closed; a call that waits for one gets a new one."""
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if self._waiting:
            self._open(self._waiting.popleft())
        if call:
            self._failed(call, reason)

    def close(self) -> None:
        """Close everything; calls under way are not reported any more."""
        for connection in self._all:
            connection.close()

    def _take(self) -> Connection | None:
        while self._free:
            connection = self._free.popleft()
            if time.monotonic() - connection.used < IDLE_SECONDS:
                return connection
            self._all.discard(connection)
            connection.close()
        return None

    def _open(self, call: Call) -> None:
        self.opened += 1
        self._all.add(Connection(self, self._selector, self._address, call))
