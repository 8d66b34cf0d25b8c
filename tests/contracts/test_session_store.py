"""The promises of service.sessions.store.SessionStore, demanded of every store."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.sessions.breaker import Breaker
from service.sessions.memory import MemorySessionStore
from service.sessions.redis import RedisSessionStore
from service.sessions.store import REMEMBERED_CLICKS, Answer, Session, SessionStore, TooManyClicks
from tests.redis_server import RedisServer

MAX_CLICKS = 5
MakeStore = Callable[..., SessionStore]


def new_id() -> str:
    return uuid.uuid4().hex


@pytest.fixture(params=["memory", "redis", "redis behind a breaker"])
async def make_store(request: pytest.FixtureRequest) -> AsyncIterator[MakeStore]:
    """A store with the given bounds; all are closed at the end."""
    url = None if request.param == "memory" else request.getfixturevalue("redis_url")
    async with AsyncExitStack() as stack:

        def make(max_clicks: int = MAX_CLICKS, idle_seconds: float = 60, **caps: int) -> SessionStore:
            bounds = {"max_clicks": max_clicks, "idle_seconds": idle_seconds, **caps}
            store: SessionStore
            if url is None:
                store = MemorySessionStore(max_sessions=1000, **bounds)  # type: ignore[arg-type]
            else:
                store = RedisSessionStore(url, timeout_seconds=5, max_waiting=1000, **bounds)  # type: ignore[arg-type]
            if "breaker" in request.param:
                store = Breaker(store)
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


def answer(*items: str) -> Answer:
    return Answer("model", items)


async def test_the_next_click_gets_what_was_answered_to_the_last(store: SessionStore) -> None:
    first = await store.append("s", "a")
    store.remember("s", 1, answer("b", "ü-日本"))
    assert first.answered is None
    assert (await store.append("s", "b")).answered == answer("b", "ü-日本")
    assert (await store.append("s", "c")).answered is None, "an answer is judged by one click only"


async def test_the_answer_to_another_click_is_not_judged(store: SessionStore) -> None:
    await store.append("s", "a")
    await store.append("s", "b")
    store.remember("s", 1, answer("late"))
    assert (await store.append("s", "c")).answered is None


async def test_a_repeat_judges_nothing_and_leaves_the_answer_to_the_next_click(store: SessionStore) -> None:
    await store.append("s", "a", "e1")
    store.remember("s", 1, answer("b"))
    assert (await store.append("s", "a", "e1")).answered is None
    assert (await store.append("s", "b", "e2")).answered == answer("b")


async def test_an_empty_answer_is_one(store: SessionStore) -> None:
    await store.append("s", "a")
    store.remember("s", 1, answer())
    assert (await store.append("s", "b")).answered == answer()


async def test_answers_go_with_the_session(make_store: MakeStore) -> None:
    store = make_store(idle_seconds=0.2)
    for forget in (lambda: store.delete("s"), lambda: asyncio.sleep(0.3)):
        await store.append("s", "a")
        store.remember("s", 1, answer("b"))
        await forget()
        await store.append("s", "a")
        assert (await store.append("s", "b")).answered is None


async def test_answers_to_unknown_sessions_are_dropped_or_harmless(store: SessionStore) -> None:
    store.remember("nobody", 7, answer("b"))
    assert await store.append("nobody", "a") == Session(("a",), 1)


@pytest.mark.parametrize("cap", [1, 3, REMEMBERED_CLICKS])
async def test_clicks_past_the_cap_of_a_second_are_refused_and_not_stored(make_store: MakeStore, cap: int) -> None:
    store = make_store(clicks_per_second=cap)
    for n in range(cap):
        await store.append("s", str(n), f"e{n}")
    before = await store.read("s")
    for _ in range(3):
        with pytest.raises(TooManyClicks) as refused:
            await store.append("s", "more")
        assert 0 < refused.value.retry_seconds <= 1
    assert await store.append("s", "0", "e0") == Session(("0",), 1), "a repeat is no click"
    assert await store.append("another", "a") == Session(("a",), 1)
    assert await store.read("s") == before
    await asyncio.sleep(refused.value.retry_seconds + 0.05)
    assert (await store.append("s", "later")).clicks == cap + 1


async def test_forty_writers_past_the_cap_of_a_second_get_exactly_it(make_store: MakeStore) -> None:
    store = make_store(clicks_per_second=10, max_clicks=50)
    answers = await asyncio.gather(*(store.append("s", str(n)) for n in range(40)), return_exceptions=True)
    assert sum(isinstance(each, Session) for each in answers) == 10
    assert sum(isinstance(each, TooManyClicks) for each in answers) == 30


async def test_a_session_takes_no_more_clicks_than_its_cap(make_store: MakeStore) -> None:
    store = make_store(clicks_per_session=3, max_clicks=2)
    for n in range(3):
        await store.append("s", str(n), f"e{n}")
    for _ in range(2):
        with pytest.raises(TooManyClicks) as refused:
            await store.append("s", "more")
        assert 50 < refused.value.retry_seconds <= 60, "when the session is gone"
    assert await store.read("s") == Session(("1", "2"), 3)
    assert (await store.append("s", "2", "e2")).clicks == 3


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
