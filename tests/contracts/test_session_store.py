"""The promises of service.sessions.store.SessionStore, demanded of every store."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.sessions.memory import MemorySessionStore
from service.sessions.redis import RedisSessionStore
from service.sessions.store import REMEMBERED_CLICKS, Session, SessionStore
from tests.redis_server import RedisServer

MAX_CLICKS = 5
MakeStore = Callable[..., SessionStore]


def new_id() -> str:
    return uuid.uuid4().hex


@pytest.fixture(params=["memory", "redis"])
async def make_store(request: pytest.FixtureRequest) -> AsyncIterator[MakeStore]:
    """A store with the given bounds; all are closed at the end."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    async with AsyncExitStack() as stack:

        def make(max_clicks: int = MAX_CLICKS, idle_seconds: float = 60) -> SessionStore:
            store: SessionStore = (
                MemorySessionStore(max_clicks=max_clicks, idle_seconds=idle_seconds, max_sessions=1000)
                if url is None
                else RedisSessionStore(
                    url,
                    max_clicks=max_clicks,
                    idle_seconds=idle_seconds,
                    timeout_seconds=5,
                    max_waiting=1000,
                )
            )
            stack.push_async_callback(store.aclose)
            return store

        yield make


@pytest.fixture
def store(make_store: MakeStore) -> SessionStore:
    return make_store()


async def test_unknown_session_is_empty(store: SessionStore) -> None:
    assert await store.read("nobody") == Session((), 0)


async def test_append_returns_the_session_that_ends_with_the_click(store: SessionStore) -> None:
    assert await store.append("s", "a") == Session(("a",), 1)
    assert await store.append("s", "b") == Session(("a", "b"), 2)
    assert await store.read("s") == Session(("a", "b"), 2)


async def test_the_same_item_twice_is_two_clicks(store: SessionStore) -> None:
    await store.append("s", "a")
    assert await store.append("s", "a") == Session(("a", "a"), 2)


async def test_sessions_do_not_touch_each_other(store: SessionStore) -> None:
    await store.append("s", "a", "event")
    assert await store.append("t", "b", "event") == Session(("b",), 1)
    assert await store.read("s") == Session(("a",), 1)


async def test_only_the_last_clicks_are_kept_at_every_length_past_the_bound(store: SessionStore) -> None:
    items = [str(n) for n in range(MAX_CLICKS + REMEMBERED_CLICKS + 20)]
    for n in range(1, len(items) + 1):
        expected = Session(tuple(items[max(0, n - MAX_CLICKS) : n]), n)
        assert await store.append("s", items[n - 1]) == expected
        assert await store.read("s") == expected


async def test_one_click_can_be_the_bound(make_store: MakeStore) -> None:
    store = make_store(max_clicks=1)
    await store.append("s", "a")
    assert await store.append("s", "b") == Session(("b",), 2)


async def test_repeated_event_id_changes_nothing_and_answers_the_same(store: SessionStore) -> None:
    await store.append("s", "a", "e1")
    first = await store.append("s", "b", "e2")
    for _ in range(3):
        assert await store.append("s", "b", "e2") == first
    assert await store.read("s") == first == Session(("a", "b"), 2)


async def test_repeat_after_later_clicks_answers_as_it_did_then(store: SessionStore) -> None:
    answers = [await store.append("s", str(n), f"e{n}") for n in range(3 * MAX_CLICKS)]
    for n, answer in enumerate(answers):
        assert await store.append("s", str(n), f"e{n}") == answer
    assert await store.read("s") == answers[-1]


async def test_the_item_of_a_repeat_is_not_looked_at(store: SessionStore) -> None:
    first = await store.append("s", "a", "e1")
    assert await store.append("s", "other", "e1") == first


async def test_events_are_remembered_up_to_the_bound_and_not_past_it(store: SessionStore) -> None:
    first = await store.append("s", "a", "e1")
    for n in range(REMEMBERED_CLICKS - 1):
        await store.append("s", str(n))
    assert await store.append("s", "a", "e1") == first
    last = await store.append("s", "one more")
    assert (await store.append("s", "a", "e1")).clicks == last.clicks + 1


async def test_clicks_without_event_id_are_never_repeats(store: SessionStore) -> None:
    await store.append("s", "a", None)
    assert (await store.append("s", "a", None)).clicks == 2


@pytest.mark.parametrize("event_id", ["1", "a b", "%d+", "-", "[^\\n]*", "é", "x" * 128])
async def test_event_ids_are_plain_text(store: SessionStore, event_id: str) -> None:
    first = await store.append("s", "item", event_id)
    assert await store.append("s", "item", event_id) == first
    assert (await store.append("s", "item", event_id + "1")).clicks == 2


async def test_delete_forgets_clicks_and_events(store: SessionStore) -> None:
    await store.append("s", "a", "e1")
    await store.delete("s")
    assert await store.read("s") == Session()
    assert await store.append("s", "b", "e1") == Session(("b",), 1)


async def test_delete_of_an_unknown_session_is_no_error(store: SessionStore) -> None:
    await store.delete("nobody")


async def test_session_is_gone_after_the_idle_time(make_store: MakeStore) -> None:
    store = make_store(idle_seconds=0.2)
    await store.append("s", "a", "e1")
    await asyncio.sleep(0.3)
    assert await store.read("s") == Session()
    assert await store.append("s", "b", "e1") == Session(("b",), 1)


async def test_a_click_keeps_the_session_alive_but_reading_and_repeating_do_not(
    make_store: MakeStore,
) -> None:
    store = make_store(idle_seconds=0.5)
    await store.append("s", "a", "e1")
    await asyncio.sleep(0.3)
    assert (await store.append("s", "b", "e2")).clicks == 2
    await asyncio.sleep(0.3)
    assert (await store.read("s")).clicks == 2, "the second click began the idle time anew"
    await store.append("s", "a", "e1")
    await asyncio.sleep(0.3)
    assert await store.read("s") == Session()


async def test_forty_concurrent_writers_lose_no_click(make_store: MakeStore) -> None:
    store = make_store(max_clicks=400)
    writers, clicks = 40, 10

    async def write(writer: int) -> list[Session]:
        return [await store.append("s", f"{writer}:{n}") for n in range(clicks)]

    answers = [session for each in await asyncio.gather(*map(write, range(writers))) for session in each]
    final = await store.read("s")
    assert sorted(final.items) == sorted(f"{w}:{n}" for w in range(writers) for n in range(clicks))
    assert sorted(session.clicks for session in answers) == list(range(1, writers * clicks + 1))
    for session in answers:
        assert session.items == final.items[: session.clicks]
    for writer in range(writers):
        own = [item for item in final.items if item.startswith(f"{writer}:")]
        assert own == [f"{writer}:{n}" for n in range(clicks)], "each writer's own order is kept"


async def test_forty_writers_of_one_event_make_one_click(store: SessionStore) -> None:
    answers = await asyncio.gather(*(store.append("s", "a", "e1") for _ in range(40)))
    assert set(answers) == {Session(("a",), 1)}


@pytest.mark.parametrize(
    "session_id",
    ["a", "x" * 128, "-._~!$&'()*+,;=:@", "{", "}", "{}", "a{b}c", "ü-日本-🥣", "with space", "*", "s\\1"],
)
async def test_any_session_id_is_its_own_session(store: SessionStore, session_id: str) -> None:
    await store.append("another", "x")
    await store.append(session_id, "a")
    assert await store.append(session_id, "b") == Session(("a", "b"), 2)
    await store.delete(session_id)
    assert await store.read(session_id) == Session()
    assert await store.read("another") == Session(("x",), 1)


@pytest.mark.parametrize("item", ["日本語", "🥣", "a\nb\nc", "\n", "1\n2\n", " ", "x" * 256, "\x00", "é"])
async def test_items_come_back_as_they_were(store: SessionStore, item: str) -> None:
    await store.append("s", item, "e1")
    assert await store.append("s", item) == Session((item, item), 2)


async def test_ping_answers(store: SessionStore) -> None:
    await store.ping()


@settings(max_examples=50, deadline=None)
@given(
    clicks=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, "e1", "e2", "e3"])), max_size=30),
    max_clicks=st.integers(1, 6),
)
def test_any_run_of_clicks_answers_like_a_plain_list(
    redis_server: RedisServer, clicks: list[tuple[str, str | None]], max_clicks: int
) -> None:
    """Both stores against a few lines that are right by inspection."""

    async def run(store: SessionStore) -> list[Session]:
        session_id = new_id()
        try:
            return [await store.append(session_id, item, event) for item, event in clicks]
        finally:
            await store.aclose()

    expected: list[Session] = []
    kept: list[str] = []
    answered: dict[str, Session] = {}
    for item, event in clicks:
        if event not in answered:
            kept.append(item)
            session = Session(tuple(kept[-max_clicks:]), len(kept))
            answered[event or new_id()] = session
        expected.append(answered[event] if event else session)

    memory = MemorySessionStore(max_clicks=max_clicks, idle_seconds=60, max_sessions=1000)
    redis = RedisSessionStore(
        redis_server.url, max_clicks=max_clicks, idle_seconds=60, timeout_seconds=5, max_waiting=1000
    )
    assert asyncio.run(run(memory)) == expected
    assert asyncio.run(run(redis)) == expected
