"""The breaker in front of a real Redis that hangs, dies and comes back; the store's contract: tests/contracts."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from service.sessions import breaker
from service.sessions.breaker import Breaker
from service.sessions.memory import MemorySessionStore
from service.sessions.redis import RedisSessionStore
from service.sessions.store import Answer, Session, StoreSilent
from srgnn.errors import StoreUnavailable
from tests.redis_server import RedisServer

TIMEOUT_SECONDS = 0.2


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def changes() -> list[bool]:
    return []


@pytest.fixture
async def store(server: RedisServer, changes: list[bool]) -> AsyncIterator[Breaker]:
    redis = RedisSessionStore(
        server.url, max_clicks=5, idle_seconds=60, timeout_seconds=TIMEOUT_SECONDS, max_waiting=1000
    )
    store = Breaker(redis, changes.append)
    yield store
    await store.aclose()


async def closed_again(store: Breaker, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while store.open:
            await asyncio.sleep(0.02)


async def fails(call: Awaitable[object]) -> None:
    with pytest.raises(StoreUnavailable):
        await call


async def commands_seen(server: RedisServer) -> int:
    found = await asyncio.to_thread(server.command, "INFO", "stats")
    return int(found.split(b"total_commands_processed:")[1].split()[0])


async def test_a_silent_store_is_asked_once_and_then_left_alone(
    server: RedisServer, store: Breaker, changes: list[bool]
) -> None:
    await store.append("s", "a")
    server.hang()
    await asyncio.gather(*(fails(store.append("s", str(n))) for n in range(30)))
    assert store.open
    started = time.monotonic()
    for call in (store.append("s", "b"), store.read("s"), store.delete("s"), store.ping()):
        await fails(call)
    assert time.monotonic() - started < TIMEOUT_SECONDS, "none of them waited"
    store.remember("s", 1, Answer("model", ("a",)))
    server.resume()
    await closed_again(store)
    assert changes == [True, False]
    assert (await store.append("t", "a")).clicks == 1


@pytest.mark.parametrize("call", [lambda s: s.append("s", "a"), lambda s: s.read("s"), lambda s: s.delete("s")])
async def test_any_call_opens_it_and_a_restart_closes_it(
    server: RedisServer, store: Breaker, call: Callable[[Breaker], Awaitable[object]]
) -> None:
    await asyncio.to_thread(server.stop)
    await fails(call(store))
    assert store.open
    await asyncio.to_thread(server.start)
    await closed_again(store)
    assert await store.append("t", "a") == Session(("a",), 1)


async def test_an_error_as_answer_does_not_open_it(server: RedisServer, store: Breaker) -> None:
    server.command("SET", "srgnn:session:2:{s}", "text")
    await fails(store.append("s", "a"))
    assert not store.open
    assert (await store.append("t", "a")).clicks == 1


class AnswersOnlyProbes(MemorySessionStore):
    """As a store does that has become too slow for its load."""

    async def append(self, session_id: str, item_id: str, event_id: str | None = None) -> Session:
        raise StoreSilent("silent")


async def test_a_store_that_answers_only_probes_is_asked_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(breaker, "LONGEST_PAUSE_SECONDS", 0.04)
    store = Breaker(AnswersOnlyProbes(max_clicks=5, idle_seconds=60, max_sessions=10))
    pauses = []
    for _ in range(5):
        pauses.append(store._pause_seconds)
        await fails(store.append("s", "a"))
        await closed_again(store)
        for _ in range(breaker.STEADY_CALLS):
            await store.ping()
    assert pauses == [0.01, 0.02, 0.04, 0.04, 0.04]
    for _ in range(breaker.STEADY_CALLS):
        await store.read("s")
    await fails(store.append("s", "a"))
    assert store._pause_seconds == 0.01, "it has borne load meanwhile, so it begins anew"
    await store.aclose()


async def test_a_store_that_bears_load_and_is_late_now_and_then_is_soon_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE_SECONDS", 0.01)
    store = Breaker(AnswersOnlyProbes(max_clicks=5, idle_seconds=60, max_sessions=10))
    for _ in range(4):
        for _ in range(breaker.STEADY_CALLS):
            await store.read("s")
        await fails(store.append("s", "a"))
        assert store._pause_seconds == 0.01
        await closed_again(store)
    await store.aclose()


async def test_what_happened_is_logged_once_each_way(
    server: RedisServer, store: Breaker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, breaker.logger.name)
    server.hang()
    for _ in range(5):
        await fails(store.append("s", "a"))
    server.resume()
    await closed_again(store)
    assert [record.getMessage() for record in caplog.records] == [
        "session store silent, answering without it",
        "session store answers again",
    ]
    assert caplog.records[1].fields["calls_spared"] == 4  # type: ignore[attr-defined]


async def test_closing_ends_the_probing(server: RedisServer, store: Breaker) -> None:
    server.hang()
    await fails(store.append("s", "a"))
    probing = store._probing
    await store.aclose()
    assert probing
    assert probing.cancelled()
    server.resume()
