import asyncio
import gc
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
import uvloop
from redis.asyncio import ConnectionPool
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from service.sessions.pipeline import POST_SECONDS, Pipeline
from tests.redis_server import RedisServer, free_port

TIMEOUT_SECONDS = 0.2


def make(url: str, max_waiting: int = 1000) -> Pipeline:
    pool = ConnectionPool.from_url(url, protocol=2, decode_responses=True)
    return Pipeline(pool.make_connection, timeout_seconds=TIMEOUT_SECONDS, max_waiting=max_waiting)


@pytest.fixture
async def pipeline(redis_url: str) -> AsyncIterator[Pipeline]:
    pipeline = make(redis_url)
    yield pipeline
    await pipeline.aclose()


def clients(redis_server: RedisServer) -> int:
    """Connections Redis has, the asking one aside."""
    return redis_server.command("CLIENT", "LIST").count(b" addr=") - 1


async def test_every_caller_gets_the_answer_to_its_own_command(pipeline: Pipeline, redis_server: RedisServer) -> None:
    before = clients(redis_server)
    answers = await asyncio.gather(*(pipeline.call("ECHO", n) for n in range(500)))
    assert answers == [str(n) for n in range(500)]
    assert clients(redis_server) == before + 1


async def test_an_error_is_the_answer_to_one_command_only(pipeline: Pipeline) -> None:
    answers = await asyncio.gather(
        pipeline.call("ECHO", "a"), pipeline.call("NONSENSE"), pipeline.call("ECHO", "b"), return_exceptions=True
    )
    assert isinstance(answers[1], ResponseError)
    assert [answers[0], answers[2]] == ["a", "b"]


async def test_a_cancelled_call_shifts_no_answer(pipeline: Pipeline) -> None:
    await pipeline.call("PING")
    calls = [asyncio.ensure_future(pipeline.call("ECHO", n)) for n in range(10)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert answers[1::2] == ["1", "3", "5", "7", "9"]
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
    assert await pipeline.call("ECHO", "after") == "after"


async def test_more_calls_than_may_wait_are_refused_at_once(redis_url: str) -> None:
    pipeline = make(redis_url, max_waiting=3)
    answers = await asyncio.gather(*(pipeline.call("ECHO", n) for n in range(5)), return_exceptions=True)
    assert answers[:3] == ["0", "1", "2"]
    assert all(isinstance(answer, ConnectionError) for answer in answers[3:])
    assert await pipeline.call("PING") == "PONG", "answered calls wait no more"
    await pipeline.aclose()


async def test_a_pause_of_the_event_loop_is_not_taken_for_a_silent_redis(pipeline: Pipeline) -> None:
    await pipeline.call("PING")
    call = asyncio.ensure_future(pipeline.call("ECHO", "there all along"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the command is on its way
    time.sleep(2 * TIMEOUT_SECONDS)
    assert await call == "there all along"


Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(behave: Peer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The URL of something that listens like Redis and behaves otherwise; ``behave`` ends with its connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        await behave(reader, writer)
        writer.close()

    async with await asyncio.start_server(until_closed, "127.0.0.1", 0, ssl=tls) as server:
        yield f"redis{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        await asyncio.wait(tasks)


async def test_one_silence_fails_all_who_wait_and_the_next_call_connects_anew() -> None:
    connections = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()  # until the other side closes

    async with peer(silent) as url:
        pipeline = make(url)
        for attempt in (1, 2):
            started = time.monotonic()
            answers = await asyncio.gather(*(pipeline.call("PING") for _ in range(20)), return_exceptions=True)
            assert all(isinstance(answer, TimeoutError) for answer in answers)
            assert time.monotonic() - started < TIMEOUT_SECONDS + 0.3
            assert connections == attempt
        await pipeline.aclose()


async def test_an_answer_nobody_asked_for_breaks_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while words := (await reader.read(4096)).count(b"*"):
            writer.write(b"+OK\r\n" * (words + 1))

    async with peer(talkative) as url:
        pool = ConnectionPool.from_url(url, protocol=2, driver_info=None)
        pipeline = Pipeline(pool.make_connection, timeout_seconds=TIMEOUT_SECONDS, max_waiting=10)
        for _ in range(3):
            assert await pipeline.call("PING") == b"OK"
            await asyncio.sleep(0.02)  # the answer too many comes, and the next call finds a new connection
        await pipeline.aclose()
    assert not caplog.records


async def test_replies_that_come_in_pieces_and_several_at_once_are_each_its_own_calls() -> None:
    async def dribbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """First all of the first but its last byte, byte by byte, then that one together with all the others."""
        await reader.readuntil(b"PING\r\n")
        replies = b"$1\r\n8\r\n" + b"$1\r\n9\r\n" + b"$2\r\n10\r\n"
        for position in range(6):
            writer.write(replies[position : position + 1])
            await asyncio.sleep(0.001)
        writer.write(replies[6:])
        await reader.read()  # until the other side closes

    async with peer(dribbling) as url:
        pool = ConnectionPool.from_url(url, protocol=2, driver_info=None)
        pipeline = Pipeline(pool.make_connection, timeout_seconds=TIMEOUT_SECONDS, max_waiting=10)
        assert await asyncio.gather(*(pipeline.call("PING") for _ in range(3))) == [b"8", b"9", b"10"]
        await pipeline.aclose()


async def test_a_redis_that_is_loading_is_connected_to_anew() -> None:
    connections = 0

    async def loading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"PING\r\n")
        writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
        await reader.read()

    async with peer(loading) as url:
        pool = ConnectionPool.from_url(url, protocol=2, driver_info=None)
        pipeline = Pipeline(pool.make_connection, timeout_seconds=TIMEOUT_SECONDS, max_waiting=10)
        for attempt in (1, 2):
            with pytest.raises(BusyLoadingError):
                await pipeline.call("PING")
            assert connections == attempt
        await pipeline.aclose()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_over_tls_to_a_redis_with_a_password_on_either_event_loop(
    run: Callable[[Awaitable[None]], None], tmp_path: Path
) -> None:
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", server.port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(1 << 16):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, to_redis), copy(from_redis, writer))

    async def answers() -> None:
        async with peer(pass_on, tls) as url:
            pipeline = make(f"{url.replace('//', '//:secret@')}?ssl_ca_certs={tmp_path / 'ca.pem'}")
            long = "x" * 100_000  # more than a TLS record
            assert await asyncio.gather(*(pipeline.call("ECHO", f"{n}{long}") for n in range(5))) == [
                f"{n}{long}" for n in range(5)
            ]
            await pipeline.aclose()

    with RedisServer() as server:
        server.command("CONFIG SET requirepass secret")
        run(answers())


def test_a_connection_closed_before_the_call_is_an_error_of_the_call_also_on_uvloop(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """uvloop raises RuntimeError where asyncio raises ConnectionError; an error nobody expects ends up in the log."""

    async def call_over_a_closed_one() -> None:
        pool = ConnectionPool.from_url(redis_url, protocol=2, socket_timeout=None)
        connection = pool.make_connection()
        pipeline = Pipeline(lambda: connection, timeout_seconds=TIMEOUT_SECONDS, max_waiting=10)
        assert await pipeline.call("PING") == b"PONG"
        connection._writer.transport.abort()
        with pytest.raises((RedisError, OSError)):
            await pipeline.call("PING")
        await pipeline.aclose()
        gc.collect()

    uvloop.run(call_over_a_closed_one())
    assert not caplog.records


async def test_nobody_listening_is_told_at_once() -> None:
    pipeline = make(f"redis://127.0.0.1:{free_port()}/0")
    started = time.monotonic()
    with pytest.raises(Exception, match="Connect"):
        await pipeline.call("PING")
    assert time.monotonic() - started < TIMEOUT_SECONDS
    await pipeline.aclose()


async def test_calls_under_way_fail_when_it_is_closed(redis_server: RedisServer, pipeline: Pipeline) -> None:
    redis_server.hang()
    try:
        call = asyncio.ensure_future(pipeline.call("PING"))
        await asyncio.sleep(0.02)
        await pipeline.aclose()
        with pytest.raises(ConnectionError, match="given up"):
            await call
    finally:
        redis_server.resume()


async def test_what_nobody_waits_for_goes_out_by_itself_and_never_behind_a_later_call(
    pipeline: Pipeline, redis_server: RedisServer
) -> None:
    await pipeline.call("PING")
    pipeline.post("SET", "posted", "1")
    assert await pipeline.call("GET", "posted") == "1"
    pipeline.post("SET", "posted", "2")
    pipeline.post("INCR", "posted")
    await asyncio.sleep(10 * POST_SECONDS)
    assert redis_server.command("GET", "posted") == b"$1\r\n3\r\n"
    pipeline.post("SET", "posted", "4")
    await pipeline.aclose()
    assert redis_server.command("GET", "posted") == b"$1\r\n4\r\n"
