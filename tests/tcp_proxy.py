"""A TCP proxy with faults that switch on and off while connections are open. It runs in a thread of its own."""

import asyncio
import math
import multiprocessing
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

import uvloop

HOST = "127.0.0.1"
READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Fault:
    """What happens to connections, those that are open and new ones; the defaults do nothing."""

    connections: Literal["carried", "reset", "refused"] = "carried"
    request_seconds: float = 0.0
    """Added to the way of whatever arrives from the client."""
    reply_seconds: float = 0.0
    bytes_per_second: float = math.inf
    """In each direction of a connection."""
    piece_bytes: int = READ_BYTES
    """Most that is sent at once."""
    request_bytes: float = math.inf
    """How much of a connection's requests gets through from the switch on."""
    reply_bytes: float = math.inf
    then: Literal["silence", "reset"] = "silence"
    """What comes after those bytes. In silence the rest is held back, and delivered when the fault has ended, as TCP
    does once a network works again."""


HEALTHY = Fault()
FAULTS = {
    "latency": Fault(request_seconds=0.01, reply_seconds=0.01),
    "high latency": Fault(request_seconds=0.15, reply_seconds=0.15),
    "black hole": Fault(request_bytes=0),
    "replies lost": Fault(reply_bytes=0),
    "reply cut, then silence": Fault(reply_bytes=25),
    "reply cut, then reset": Fault(reply_bytes=25, then="reset"),
    "greeting cut": Fault(reply_bytes=3),
    "reset": Fault(connections="reset"),
    "refused": Fault(connections="refused"),
    "byte by byte": Fault(piece_bytes=1),
    "bandwidth": Fault(piece_bytes=64, bytes_per_second=2_000),
}
"""One of each kind. A click is some 200 bytes to Redis and some 100 back: a tenth of a second at that bandwidth."""


class Switched(ABC):
    """What has faults that switch on and off."""

    port: int

    @abstractmethod
    def switch(self, fault: Fault) -> None:
        """From the return on everything is as ``fault`` says."""

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """The fault for as long as the block takes."""
        self.switch(fault)
        try:
            yield
        finally:
            self.switch(HEALTHY)


class Proxy(Switched):
    """``with Proxy(redis.port) as proxy``: ``proxy.port`` leads there; ``with proxy.fault(...)`` it does so badly."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self._to_port = to_port
        self._fault = HEALTHY
        self._open: set[asyncio.StreamWriter] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), name="proxy")

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def switch(self, fault: Fault) -> None:
        """See :class:`Switched`."""
        asyncio.run_coroutine_threadsafe(self._switch(fault), self._loop).result()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._switched = asyncio.Event(), asyncio.Event()
        await self._listen()
        self._started.set()
        await self._stop.wait()
        self._server.close()
        self._reset_all()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _switch(self, fault: Fault) -> None:
        self._fault = fault
        self._switched.set()
        self._switched = asyncio.Event()
        if fault.connections != "carried":
            self._reset_all()
        if fault.connections == "refused":
            self._server.close()
        elif not self._server.is_serving():
            await self._listen()

    def _reset_all(self) -> None:
        for writer in self._open:
            _reset(writer)

    async def _connected(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._fault.connections != "carried":
            return _reset(client)
        ends = {client}
        self._open |= ends
        try:
            server_reader, server = await asyncio.open_connection(HOST, self._to_port)
            ends.add(server)
            self._open |= ends
            async with asyncio.TaskGroup() as tasks:
                for reader, writer in ((client_reader, server), (server_reader, client)):
                    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
                    tasks.create_task(self._read(reader, on_the_way, is_reply=writer is client))
                    tasks.create_task(self._write(writer, on_the_way, is_reply=writer is client))
        except* (OSError, RuntimeError, asyncio.CancelledError):  # one end is gone (uvloop's word), or the proxy stops
            for writer in ends:
                _reset(writer)
        finally:
            self._open -= ends
            for writer in ends:
                writer.close()

    async def _read(
        self, reader: asyncio.StreamReader, on_the_way: "asyncio.Queue[tuple[float, bytes]]", is_reply: bool
    ) -> None:
        data = b"any"
        while data:
            data = await reader.read(READ_BYTES)
            delay = self._fault.reply_seconds if is_reply else self._fault.request_seconds
            on_the_way.put_nowait((self._loop.time() + delay, data))

    async def _write(
        self, writer: asyncio.StreamWriter, on_the_way: "asyncio.Queue[tuple[float, bytes]]", is_reply: bool
    ) -> None:
        fault, sent = self._fault, 0
        while True:
            due, data = await on_the_way.get()
            await asyncio.sleep(due - self._loop.time())
            if not data:
                return writer.write_eof()
            while data:
                if self._fault is not fault:
                    fault, sent = self._fault, 0
                most = min(fault.piece_bytes, (fault.reply_bytes if is_reply else fault.request_bytes) - sent)
                if most > 0:
                    piece, data = data[: int(most)], data[int(most) :]
                    writer.write(piece)
                    await writer.drain()
                    sent += len(piece)
                    await asyncio.sleep(len(piece) / fault.bytes_per_second)
                elif fault.then == "reset":
                    raise ConnectionResetError
                else:
                    await self._switched.wait()


class ProxyProcess(Switched):
    """The same in a process of its own: who measures what a fault costs must not be held up by the proxy's work."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        spawn = multiprocessing.get_context("spawn")
        self._pipe, other = spawn.Pipe()
        self._process = spawn.Process(target=_obey, args=(to_port, other), daemon=True)

    def __enter__(self) -> "ProxyProcess":
        self._process.start()
        self.port = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join()

    def switch(self, fault: Fault) -> None:
        """See :class:`Switched`."""
        self._pipe.send(fault)
        self._pipe.recv()


def _obey(to_port: int, pipe: Connection) -> None:
    with Proxy(to_port) as proxy:
        pipe.send(proxy.port)
        while fault := pipe.recv():
            proxy.switch(fault)
            pipe.send(proxy.port)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
