"""What only this store promises; the rest is in tests/contracts/test_session_store.py."""

from service.sessions.memory import MemorySessionStore
from service.sessions.store import Session


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock, max_sessions: int = 3) -> MemorySessionStore:
    return MemorySessionStore(max_clicks=5, idle_seconds=10, max_sessions=max_sessions, clock=clock)


async def test_past_the_bound_the_session_idle_longest_is_dropped() -> None:
    store = make(Clock())
    for session in ("a", "b", "c", "a", "d"):
        await store.append(session, "item")
    assert len(store) == 3
    assert await store.read("b") == Session()
    assert (await store.read("a")).clicks == 2


async def test_the_number_of_sessions_stays_bounded() -> None:
    store = make(Clock())
    for n in range(100):
        await store.append(str(n), "item")
        assert len(store) <= 3


async def test_expired_sessions_make_room_without_being_asked_for() -> None:
    clock = Clock()
    store = make(clock, max_sessions=1000)
    for n in range(100):
        await store.append(str(n), "item")
    clock.now += 10
    await store.append("new", "item")
    assert len(store) == 1


async def test_session_lives_up_to_its_idle_time_exactly() -> None:
    clock = Clock()
    store = make(clock)
    await store.append("s", "item")
    clock.now += 9.99
    assert (await store.read("s")).clicks == 1
    clock.now += 0.01
    assert await store.read("s") == Session()
