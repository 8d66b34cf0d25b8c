"""What only this store promises; the rest is in tests/contracts/test_session_store.py."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from service.sessions.redis import RedisSessionStore, without_password
from service.sessions.store import REMEMBERED_CLICKS, Answer, Session
from srgnn.errors import StoreUnavailable
from tests.redis_server import RedisServer, free_port

TIMEOUT_SECONDS = 0.2


def make(url: str, max_waiting: int = 100) -> RedisSessionStore:
    return RedisSessionStore(
        url,
        max_clicks=5,
        idle_seconds=60,
        timeout_seconds=TIMEOUT_SECONDS,
        max_waiting=max_waiting,
    )


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisSessionStore]:
    store = make(redis_url)
    yield store
    await store.aclose()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A Redis that the test may kill."""
    with RedisServer() as server:
        yield server


@pytest.fixture
async def own_store(own_server: RedisServer) -> AsyncIterator[RedisSessionStore]:
    store = make(own_server.url)
    yield store
    await store.aclose()


async def test_a_session_is_one_hash_tagged_key_that_expires(
    store: RedisSessionStore, redis_server: RedisServer
) -> None:
    await store.append("s1", "a", "e1")
    assert redis_server.command("KEYS", "*") == b"*1\r\n$20\r\nsrgnn:session:2:{s1}\r\n"
    ttl = int(redis_server.command("PTTL", "srgnn:session:2:{s1}").strip(b":\r\n"))
    assert 50_000 < ttl <= 60_000


async def test_what_is_stored_is_bounded(store: RedisSessionStore, redis_server: RedisServer) -> None:
    for n in range(3 * REMEMBERED_CLICKS):
        await store.append("s1", str(n))
    assert redis_server.command("LLEN", "srgnn:session:2:{s1}") == b":%d\r\n" % (5 + REMEMBERED_CLICKS)


async def test_without_a_length_there_is_no_stream(store: RedisSessionStore, redis_server: RedisServer) -> None:
    await store.append("s", "a")
    await store.delete("s")
    assert redis_server.command("KEYS", "*") == b"*0\r\n"


async def test_what_was_answered_expires_with_the_session(store: RedisSessionStore, redis_server: RedisServer) -> None:
    await store.append("s", "a")
    store.remember("s", 1, Answer("model", ("b",)))
    await store.ping()
    ttl = int(redis_server.command("PTTL", "srgnn:answer:2:{s}").strip(b":\r\n"))
    assert 50_000 < ttl <= 60_000


async def test_a_flushed_script_is_loaded_again(store: RedisSessionStore, redis_server: RedisServer) -> None:
    await store.append("s", "a")
    redis_server.command("SCRIPT", "FLUSH")
    assert await store.append("s", "b") == Session(("a", "b"), 2)


async def test_a_quiet_connection_is_kept(store: RedisSessionStore, redis_server: RedisServer) -> None:
    """redis-py would give it up after 5 seconds without an answer, and with it a click that comes just then."""
    await store.append("s", "a")
    before = redis_server.command("INFO", "stats").split(b"total_connections_received:")[1].split()[0]
    await asyncio.sleep(5.5)
    await store.append("s", "b")
    after = redis_server.command("INFO", "stats").split(b"total_connections_received:")[1].split()[0]
    assert int(after) == int(before) + 1  # the one that asks


async def test_two_workers_share_sessions_and_events(store: RedisSessionStore, redis_url: str) -> None:
    other = make(redis_url)
    first = await store.append("s", "a", "e1")
    assert await other.append("s", "a", "e1") == first
    await other.aclose()


async def test_unreachable_redis_is_store_unavailable() -> None:
    store = make(f"redis://user:secret@127.0.0.1:{free_port()}/0")
    for call in (store.ping(), store.read("s"), store.append("s", "a"), store.delete("s")):
        with pytest.raises(StoreUnavailable, match="Check that Redis runs there") as error:
            await call
        assert "secret" not in str(error.value)
    await store.aclose()


async def test_killed_redis_is_store_unavailable_and_back_after_a_restart(
    own_server: RedisServer, own_store: RedisSessionStore
) -> None:
    await asyncio.gather(*(own_store.append("s", str(n)) for n in range(20)))
    await asyncio.to_thread(own_server.stop)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await own_store.append("s", "lost")
    await asyncio.to_thread(own_server.start)
    answers = await asyncio.gather(*(own_store.append("t", str(n)) for n in range(20)))
    assert sorted(session.clicks for session in answers) == list(range(1, 21))


async def test_a_restart_between_two_calls_is_not_even_noticed(
    own_server: RedisServer, own_store: RedisSessionStore
) -> None:
    await asyncio.gather(*(own_store.append("s", str(n)) for n in range(20)))
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    assert await own_store.append("s", "a") == Session(("a",), 1)


async def test_hung_redis_costs_no_more_than_the_timeout_and_recovers(
    own_server: RedisServer, own_store: RedisSessionStore
) -> None:
    await own_store.append("s", "a")
    own_server.hang()
    started = time.monotonic()
    results = await asyncio.gather(*(own_store.append("s", str(n)) for n in range(30)), return_exceptions=True)
    assert time.monotonic() - started < TIMEOUT_SECONDS + 0.3
    assert all(isinstance(result, StoreUnavailable) for result in results)
    own_server.resume()
    await asyncio.sleep(3 * TIMEOUT_SECONDS)
    answers = await asyncio.gather(*(own_store.append("t", str(n)) for n in range(30)))
    assert len(answers) == 30


async def test_an_answer_that_came_too_late_is_never_given_to_another_call(
    own_server: RedisServer, own_store: RedisSessionStore
) -> None:
    for n in range(10):
        await own_store.append(f"s{n}", f"item {n}")
    own_server.hang()
    await asyncio.gather(*(own_store.read(f"s{n}") for n in range(10)), return_exceptions=True)
    own_server.resume()
    for n in reversed(range(10)):
        assert await own_store.read(f"s{n}") == Session((f"item {n}",), 1)


async def test_a_key_of_another_type_is_store_unavailable(store: RedisSessionStore, redis_server: RedisServer) -> None:
    redis_server.command("SET", "srgnn:session:2:{s}", "text")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.append("s", "a")


async def test_full_redis_is_store_unavailable(store: RedisSessionStore, redis_server: RedisServer) -> None:
    redis_server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable):
            await store.append("s", "a")
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://user:p%40ss@host:1/2?password=x", "rediss://host:1/2"),
        ("unix:///tmp/redis.sock?db=1&password=x", "unix:///tmp/redis.sock"),
    ],
)
def test_urls_are_shown_without_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


async def test_an_error_that_repeats_the_call_is_told_without_it(store: RedisSessionStore) -> None:
    """Redis says what an unknown command was called with, and that would be a session's id in the log."""
    with pytest.raises(StoreUnavailable, match="NO-SUCH-COMMAND") as error:
        await store._answer("append", store._redis.call("NO-SUCH-COMMAND", "secret-session", "secret-event"))
    assert "secret" not in str(error.value)
