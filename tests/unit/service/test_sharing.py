"""Several acceptors at one socket; tests/integration/test_workers.py has them in processes of their own."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from ctypes import c_long

import pytest

from service import sharing
from service.sharing import LOOKS_PER_SECOND, NOBODY, Acceptor, Share


class Listener(socket.socket):
    """Fails to accept as long as ``failure`` is set."""

    failure: OSError | None = None

    def accept(self) -> tuple[socket.socket, object]:
        if self.failure:
            raise self.failure
        return super().accept()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        yield listener


@pytest.fixture
def clients(listener: socket.socket) -> Iterator[ExitStack]:
    with ExitStack() as clients:
        yield clients


class Kept(asyncio.Protocol):
    def __init__(self, transports: list[asyncio.BaseTransport]) -> None:
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transports.append(transport)


class Workers:
    """Acceptors in one event loop."""

    def __init__(self, listener: socket.socket, clients: ExitStack) -> None:
        self._clients = clients
        self._address = listener.getsockname()
        self._listener = listener
        self.counts = (c_long * 3)(NOBODY, NOBODY, NOBODY)
        self.acceptors: list[Acceptor] = []
        self.listeners: list[Listener] = []
        self.transports: list[asyncio.BaseTransport] = []

    def start(self, number: int) -> None:
        """So many more."""
        for _ in range(number):
            listener = Listener(fileno=os.dup(self._listener.fileno()))  # one can only be watched once
            share = Share(self.counts, len(self.acceptors))
            self.listeners.append(listener)
            self.acceptors.append(Acceptor(listener, share, lambda: Kept(self.transports)))
            self.acceptors[-1].start()

    async def connect(self, number: int) -> None:
        before = self.taken
        for _ in range(number):
            self._clients.enter_context(socket.create_connection(self._address))
        async with asyncio.timeout(30):
            while min(self.taken, len(self.transports)) < before + number:
                await asyncio.sleep(0.001)

    @property
    def taken(self) -> int:
        return sum(max(count, 0) for count in self.counts)


@pytest.fixture
async def workers(listener: socket.socket, clients: ExitStack) -> AsyncIterator[Workers]:
    workers = Workers(listener, clients)
    yield workers
    for acceptor, copy in zip(workers.acceptors, workers.listeners, strict=True):
        acceptor.close()
        await acceptor.wait_closed()
        copy.close()
    for transport in workers.transports:
        transport.close()
    await asyncio.sleep(0)


def test_the_counts_of_those_that_serve_are_compared() -> None:
    counts = (c_long * 3)(NOBODY, NOBODY, NOBODY)
    first, second = Share(counts, 0), Share(counts, 1)
    first.enter()
    first.add(2)
    assert not first.exceeds_another()  # nobody else serves
    second.enter()
    assert first.exceeds_another()
    assert not second.exceeds_another()
    second.add(2)
    assert not first.exceeds_another()
    second.add(-1)
    assert first.exceeds_another()
    second.leave()
    second.add(-1)  # a connection that ends after all
    assert not first.exceeds_another()


async def test_connections_are_shared_out(workers: Workers) -> None:
    workers.start(3)
    for number in (3, 6, 21):  # one at a time, and many at once
        await workers.connect(number)
        assert len(set(workers.counts)) == 1


async def test_a_worker_that_begins_is_filled_up_first(workers: Workers) -> None:
    workers.start(1)
    await workers.connect(5)
    workers.start(1)
    await workers.connect(5)
    assert list(workers.counts) == [5, 5, NOBODY]


async def test_what_a_hung_worker_does_not_take_is_taken(workers: Workers) -> None:
    Share(workers.counts, 1).enter()
    workers.start(1)
    await workers.connect(20)
    assert list(workers.counts) == [20, 0, NOBODY]


async def test_past_its_patience_a_worker_waits_for_no_other(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    Share(workers.counts, 1).enter()
    workers.start(1)
    await workers.connect(1)
    [acceptor] = workers.acceptors
    assert sum(acceptor._leaves_it() for _ in range(2 * LOOKS_PER_SECOND)) >= LOOKS_PER_SECOND
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 3600)
    monkeypatch.setattr(acceptor._looks, "_rate", 1e-9)
    await workers.connect(20)
    assert workers.counts[0] == 21


async def test_a_connection_that_the_system_cannot_give_is_tried_again(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sharing, "FAILED_SECONDS", 0.05)
    workers.start(1)
    [listener] = workers.listeners
    listener.failure = OSError(errno.EMFILE, "Too many open files")
    connecting = asyncio.create_task(workers.connect(1))
    while not caplog.records:
        await asyncio.sleep(0.001)
    assert workers.taken == 0
    listener.failure = None
    await connecting
    record = caplog.records[0]
    assert (record.getMessage(), record.fields) == (  # type: ignore[attr-defined]
        "no connection can be taken for a second",
        {"cause": "[Errno 24] Too many open files"},
    )


async def test_who_has_closed_takes_nothing(workers: Workers) -> None:
    workers.start(2)
    await workers.connect(2)
    workers.acceptors[0].close()
    await workers.connect(3)
    assert list(workers.counts)[1:] == [4, NOBODY]
