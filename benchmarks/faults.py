"""Clicks while something fails: what the service promised about each of them, and what the fault cost.

Every click carries an event id, and every session holds an item once at most, so that the session afterwards tells
how often each click was stored. Whatever was not acknowledged is sent again under its event id, as a client would.
"""

import asyncio
import itertools
import math
import random
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

LIVE_SESSIONS = 8
CLICKS_OF_SESSION = 5
"""No more than any model looks at, so that an explained answer tells the whole session."""
STEADY = 10
"""Clicks in a row that were answered undegraded: then it has recovered."""
RECOVERY_LIMIT_SECONDS = 60.0
REPEAT_SECONDS = 0.1


@dataclass(eq=False)
class Click:
    """One click and what became of it. Times are of the monotonic clock."""

    session: "Session"
    item_id: str
    due: float
    after: frozenset[str]
    """Items of the session that were acknowledged before this one was sent."""
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    seconds: float = math.nan
    """From when it was due to its first answer."""
    answered: bool = False
    degraded: str | None = None
    """Of its first answer, as is ``answered``."""
    acknowledged: float | None = None
    """When an answer, the first or one to a repeat, said that it is stored."""


@dataclass(eq=False)
class Session:
    """Its items are all different."""

    unclicked: list[str]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    clicks: list[Click] = field(default_factory=list)

    def items(self, *, acknowledged: bool = False) -> frozenset[str]:
        """Items clicked so far."""
        return frozenset(click.item_id for click in self.clicks if click.acknowledged or not acknowledged)


class Trickle:
    """``async with Trickle(...)``: clicks at a steady rate, whether or not answers come, until the block ends.

    ``broken`` says what was answered or stored that never may be; ``lost`` are clicks that were acknowledged and are
    not in their session.
    """

    def __init__(self, client: httpx.AsyncClient, items: Sequence[str], *, per_second: float, seed: int = 0) -> None:
        self.clicks: list[Click] = []
        self.broken: list[str] = []
        self.lost: set[Click] = set()
        self._client, self._items, self._per_second = client, items, per_second
        self._random = random.Random(seed)
        self._sessions = [self._new_session() for _ in range(LIVE_SESSIONS)]
        self._stopping = False

    async def __aenter__(self) -> "Trickle":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await self._task

    async def recovered(self, since: float) -> float:
        """Seconds from ``since`` to the first of STEADY clicks in a row that are answered undegraded."""
        while time.monotonic() < since + RECOVERY_LIMIT_SECONDS:
            later = [click for click in self.clicks if click.due >= since and not math.isnan(click.seconds)]
            good = [click.answered and click.degraded is None for click in later]
            for first in range(len(later) - STEADY + 1):
                if all(good[first : first + STEADY]):
                    return later[first].due - since
            await asyncio.sleep(0.05)
        raise AssertionError(f"not recovered within {RECOVERY_LIMIT_SECONDS:.0f} s")

    async def settle(self) -> None:
        """Look at all sessions, repeat what was not acknowledged until it is, and look again."""
        sessions = {click.session for click in self.clicks}
        await self._look_at(sessions)
        for click in self.clicks:
            while click.acknowledged is None:
                await self._send(click, repeated=True)
        await self._look_at(sessions)

    async def _run(self) -> None:
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for n in itertools.count():
                due = started + n / self._per_second
                await asyncio.sleep(due - time.monotonic())
                if self._stopping:
                    return
                tasks.create_task(self._visit(self._next_click(n % LIVE_SESSIONS, due)))

    def _next_click(self, place: int, due: float) -> Click:
        if not self._sessions[place].unclicked:
            self._sessions[place] = self._new_session()
        session = self._sessions[place]
        click = Click(session, session.unclicked.pop(), due, session.items(acknowledged=True))
        session.clicks.append(click)
        self.clicks.append(click)
        return click

    def _new_session(self) -> Session:
        return Session(self._random.sample(self._items, CLICKS_OF_SESSION))

    async def _visit(self, click: Click) -> None:
        """Half of the clients try again at once where their click was not stored."""
        await self._send(click)
        if click.acknowledged is None and self._random.random() < 0.5:
            await asyncio.sleep(REPEAT_SECONDS)
            await self._send(click, repeated=True)

    async def _send(self, click: Click, *, repeated: bool = False) -> None:
        body = {"item_id": click.item_id, "event_id": click.event_id, "k": 5, "explain": True}
        try:
            response = await self._client.post(f"/sessions/{click.session.id}/click", json=body)
        except httpx.TransportError:
            response = None
        answer = response.json() if response is not None and response.status_code == 200 else None
        if not repeated:
            click.seconds = time.monotonic() - click.due
            click.answered, click.degraded = answer is not None, answer and answer["degraded"]
        if answer is not None:
            self._judge(click, answer, repeated)
            if answer["degraded"] != "store_unavailable":
                click.acknowledged = click.acknowledged or time.monotonic()

    def _judge(self, click: Click, answer: dict[str, Any], repeated: bool) -> None:
        """Whether the answer is about this session, and as much of it as ``degraded`` says."""
        seen = [each["item_id"] for each in answer["attention"] or []]  # none where the model did not answer
        if answer["session_id"] != click.session.id or not click.session.items().issuperset(seen):
            self.broken.append(f"an answer to {click.session.id} holds items of another session: {answer}")
        if answer["degraded"] == "store_unavailable":
            if answer["clicks"] != 1 or seen not in ([], [click.item_id]):
                self.broken.append(f"an answer without the store knows more than its click: {answer}")
        elif seen and seen[-1] != click.item_id:
            self.broken.append(f"an answer does not end with its click {click.item_id}: {answer}")
        elif seen and not repeated:
            self._miss(click.session, click.after.difference(seen))

    async def _look_at(self, sessions: set[Session]) -> None:
        for session in sessions:
            stored = await self._stored(session)
            for item in {item for item in stored if stored.count(item) > 1}:
                self.broken.append(f"{item} is in session {session.id} {stored.count(item)} times")
            if not session.items().issuperset(stored):
                self.broken.append(f"session {session.id} holds items nobody clicked in it: {stored}")
            self._miss(session, session.items(acknowledged=True).difference(stored))
            for click in session.clicks:
                self._check_order(click, stored)

    def _check_order(self, click: Click, stored: list[str]) -> None:
        if click.item_id not in stored:
            return
        later = click.after.intersection(stored[stored.index(click.item_id) :])
        if later:
            self.broken.append(f"{click.item_id} was sent after {later} were stored, and comes before: {stored}")

    def _miss(self, session: Session, items: frozenset[str]) -> None:
        self.lost.update(click for click in session.clicks if click.item_id in items)

    async def _stored(self, session: Session) -> list[str]:
        while True:
            response = await self._client.get(f"/sessions/{session.id}")
            if response.status_code == 200:
                return list(response.json()["items"])
            await asyncio.sleep(REPEAT_SECONDS)


@dataclass(frozen=True)
class Figures:
    """What a fault cost, of the clicks that were due while it lasted; ``lost`` and ``broken`` of all."""

    fault: str
    clicks: int
    not_answered: int
    degraded: int
    added_ms: tuple[float, ...]
    """Time to answer beyond the median before the fault, of each click."""
    recovery_seconds: float
    lost: int
    lost_seconds: float
    """How long before the fault the earliest click that is lost had been acknowledged."""
    broken: tuple[str, ...]


async def measure(
    url: str,
    items: Sequence[str],
    fault: str,
    begin: Callable[[], object],
    end: Callable[[], object],
    *,
    seconds: float,
    per_second: float = 50,
) -> Figures:
    """Clicks for ``seconds`` before and as long under the fault, until it is over, and what was stored of them.

    ``begin`` and ``end`` run in a thread: the clicks go on meanwhile. Raises AssertionError where there is no recovery.
    """
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=httpx.Limits()) as client:
        async with Trickle(client, items, per_second=per_second) as trickle:
            await asyncio.sleep(seconds)
            began = time.monotonic()
            await asyncio.to_thread(begin)
            try:
                await asyncio.sleep(seconds)
            finally:
                await asyncio.to_thread(end)
            ended = time.monotonic()
            recovery_seconds = await trickle.recovered(ended)
        await asyncio.wait_for(trickle.settle(), RECOVERY_LIMIT_SECONDS)
    usual = statistics.median(click.seconds for click in trickle.clicks if click.due < began)
    during = [click for click in trickle.clicks if began <= click.due < ended]
    return Figures(
        fault,
        clicks=len(during),
        not_answered=sum(not click.answered for click in during),
        degraded=sum(click.degraded is not None for click in during),
        added_ms=tuple(1000 * max(0.0, click.seconds - usual) for click in during),
        recovery_seconds=round(recovery_seconds, 2),
        lost=len(trickle.lost),
        lost_seconds=round(max((began - (click.acknowledged or began) for click in trickle.lost), default=0.0), 2),
        broken=tuple(trickle.broken),
    )
