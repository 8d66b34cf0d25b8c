"""Sessions in any order of calls, through any worker, as time goes by: both stores against a few lines of Python."""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from service.sessions.memory import MemorySessionStore
from service.sessions.redis import KEY_PREFIX, RedisSessionStore
from service.sessions.store import REMEMBERED_CLICKS, Session, SessionStore

MAX_CLICKS = 3
IDLE_SECONDS = 1000
WORKERS = 3

session_ids = st.sampled_from(["s", "t", "{s}"])
items = st.sampled_from(["a", "b", "1\n2"])
events = st.sampled_from(["e1", "e2", "e3", "%d+"])
workers = st.integers(0, WORKERS - 1)


@dataclass
class Model:
    """What a session store promises, one session at a time."""

    now: float = 0.0
    sessions: dict[str, list[tuple[str | None, str]]] = field(default_factory=dict)
    """(event id, item id) of every click."""
    expires_at: dict[str, float] = field(default_factory=dict)

    def append(self, session_id: str, item: str, event: str | None) -> Session:
        clicks = self.sessions.setdefault(session_id, [])
        first_remembered = max(0, len(clicks) - REMEMBERED_CLICKS)
        for place in range(first_remembered, len(clicks)):
            if event is not None and clicks[place][0] == event:
                return self._session(clicks[: place + 1])
        clicks.append((event, item))
        self.expires_at[session_id] = self.now + IDLE_SECONDS
        return self._session(clicks)

    def read(self, session_id: str) -> Session:
        return self._session(self.sessions.get(session_id, []))

    def delete(self, session_id: str) -> None:
        self.sessions.pop(session_id, None)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for session_id in list(self.sessions):
            if self.expires_at[session_id] <= self.now:
                del self.sessions[session_id]

    def _session(self, clicks: list[tuple[str | None, str]]) -> Session:
        return Session(tuple(item for _, item in clicks[-MAX_CLICKS:]), len(clicks))


class Sessions(RuleBasedStateMachine):
    """Calls to a store and to the model give the same."""

    def __init__(self, url: str | None) -> None:
        super().__init__()
        self.model = Model()
        self.loop = asyncio.Runner()
        self.redis = redis.Redis.from_url(url) if url else None
        if self.redis:
            self.redis.flushall()
        self.stores = self.make_stores(url)

    def make_stores(self, url: str | None) -> list[SessionStore]:
        """One for each worker; in memory there can be only one."""
        if url is None:
            return WORKERS * [
                MemorySessionStore(
                    max_clicks=MAX_CLICKS, idle_seconds=IDLE_SECONDS, max_sessions=10, clock=lambda: self.model.now
                )
            ]
        return [
            RedisSessionStore(
                url, max_clicks=MAX_CLICKS, idle_seconds=IDLE_SECONDS, timeout_seconds=10, max_waiting=100
            )
            for _ in range(WORKERS)
        ]

    def at_once(self, calls: Iterable[Coroutine[Any, Any, Session]]) -> list[Session]:
        async def together() -> list[Session]:
            return await asyncio.gather(*calls)

        return self.loop.run(together())

    @rule(worker=workers, session_id=session_ids, item=items)
    def click(self, worker: int, session_id: str, item: str) -> None:
        answer = self.loop.run(self.stores[worker].append(session_id, item))
        assert answer == self.model.append(session_id, item, None)

    @rule(worker=workers, session_id=session_ids, item=items, event=events)
    def click_with_event(self, worker: int, session_id: str, item: str, event: str) -> None:
        answer = self.loop.run(self.stores[worker].append(session_id, item, event))
        assert answer == self.model.append(session_id, item, event)

    @rule(worker=workers, session_id=session_ids, number=st.sampled_from([REMEMBERED_CLICKS - 1, REMEMBERED_CLICKS]))
    def click_until_events_are_forgotten(self, worker: int, session_id: str, number: int) -> None:
        """Through one worker, which keeps their order."""
        answers = self.at_once(self.stores[worker].append(session_id, str(n)) for n in range(number))
        assert answers == [self.model.append(session_id, str(n), None) for n in range(number)]

    @rule(session_id=session_ids, several=st.lists(workers, min_size=2, max_size=6))
    def click_at_once(self, session_id: str, several: list[int]) -> None:
        """In whatever order they came, all count, and each answer ends with its own click."""
        answers = self.at_once(self.stores[worker].append(session_id, f"r{n}") for n, worker in enumerate(several))
        for n in sorted(range(len(several)), key=lambda n: answers[n].clicks):
            assert answers[n] == self.model.append(session_id, f"r{n}", None)

    @rule(session_id=session_ids, event=events, several=st.lists(workers, min_size=2, max_size=6))
    def click_once_by_many(self, session_id: str, event: str, several: list[int]) -> None:
        answers = self.at_once(self.stores[worker].append(session_id, "same", event) for worker in several)
        assert set(answers) == {self.model.append(session_id, "same", event)}

    @rule(worker=workers, session_id=session_ids)
    def forget(self, worker: int, session_id: str) -> None:
        self.loop.run(self.stores[worker].delete(session_id))
        self.model.delete(session_id)

    @rule(share=st.sampled_from([0.5, 1.0]))
    def let_time_pass(self, share: float) -> None:
        """Redis' time passes by shortening what every session has left to live."""
        self.model.pass_time(share * IDLE_SECONDS)
        for key in self.redis.keys(f"{KEY_PREFIX}*") if self.redis else ():
            left = self.redis.pttl(key)
            assert 0 < left <= IDLE_SECONDS * 1000, f"{key} would stay"
            self.redis.pexpire(key, left - int(share * IDLE_SECONDS * 1000))

    @invariant()
    def every_worker_reads_what_was_clicked(self) -> None:
        for worker, session_id in enumerate(["s", "t", "{s}"]):
            assert self.loop.run(self.stores[worker].read(session_id)) == self.model.read(session_id)

    def teardown(self) -> None:
        for store in self.stores:
            self.loop.run(store.aclose())
        self.loop.close()
        if self.redis:
            self.redis.close()


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("redis_url") if request.param == "redis" else None


def test_any_run_of_calls_gives_what_a_plain_list_gives(url: str | None) -> None:
    run_state_machine_as_test(
        lambda: Sessions(url),
        settings=settings(max_examples=60, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]),
    )
