"""What the store writes into the click stream is what the contract says, and what the exporter understands."""

from contextlib import suppress

from redis.asyncio import Redis

from service.clicklog import stream
from service.clicklog.queue import ClickQueue
from service.clicklog.stream import STREAM
from service.sessions.redis import RedisSessionStore
from service.sessions.store import TooManyClicks
from tests.click_stream import Writer


def test_every_key_carries_the_version_of_the_contract() -> None:
    assert stream.STREAM.endswith(":1")
    assert {key.startswith(stream.STREAM) for key in (stream.NUMBER, stream.EXPORT)} == {True}


def test_entries_of_the_contract_are_understood(writer: Writer, queue: ClickQueue) -> None:
    writer.click("s", "Müsli 🥣", "e1")
    writer.click("s", "b")
    writer.forget("s")
    found = queue.collect(10, 0, once=True, stopping=lambda: False)
    assert [entry[1:] for entry in found] == [
        ("click", 1, "s", "Müsli 🥣", "e1"),
        ("click", 2, "s", "b", ""),
        ("forget", 3, "s", "", ""),
    ]


def make_store(url: str, **bounds: int) -> RedisSessionStore:
    caps = {"stream_length": 1000, **bounds}
    return RedisSessionStore(url, max_clicks=5, idle_seconds=60, timeout_seconds=5, max_waiting=100, **caps)


async def entries(url: str) -> list[dict[str, str]]:
    """Of the click stream."""
    async with Redis.from_url(url, decode_responses=True) as redis:
        return [fields for _, fields in await redis.xrange(STREAM)]


async def test_each_accepted_click_is_in_the_stream_once_and_forgetting_as_well(redis_url: str) -> None:
    store = make_store(redis_url)
    await store.append("s", "a", "e1")
    await store.append("s", "a", "e1")
    await store.append("t", "Müsli\n🥣")
    await store.delete("s")
    await store.aclose()
    assert await entries(redis_url) == [
        {"n": "1", "session": "s", "item": "a", "event": "e1"},
        {"n": "2", "session": "t", "item": "Müsli\n🥣", "event": ""},
        {"n": "3", "forget": "s"},
    ]


async def test_a_refused_click_is_not_in_the_stream(redis_url: str) -> None:
    store = make_store(redis_url, clicks_per_second=2)
    for n in range(3):
        with suppress(TooManyClicks):
            await store.append("s", str(n))
    await store.aclose()
    assert [each["item"] for each in await entries(redis_url)] == ["0", "1"]


async def test_the_stream_is_bounded_and_shows_what_it_lost(redis_url: str) -> None:
    store = make_store(redis_url, stream_length=200)
    for n in range(1000):
        await store.append(f"s{n}", "a")
    await store.aclose()
    numbers = [int(each["n"]) for each in await entries(redis_url)]
    assert numbers[-1] == 1000
    assert 200 <= len(numbers) <= 400, "trimmed in whole nodes"
    assert numbers == list(range(numbers[0], 1001))
