"""A swap over several workers: all of them have made the new model ready before the first one answers with it.

The parent says PREPARE, each worker loads and says that it is ready or why not; then the parent says COMMIT to all, or
ABANDON to all where one could not or died. Whoever asked is told when the last one has swapped. Needs no torch.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from srgnn.errors import SRGNNError

from .versions import BUSY, STOPPING, Outcome, SwapConflict, Versions, Wanted


class Ask(NamedTuple):
    """Worker to parent: swap, please."""

    number: int
    wanted: Wanted


class Answer(NamedTuple):
    """Parent to worker: what became of it. Without a number to one of them, where none asked: it is counted once."""

    number: int | None
    outcome: Outcome


class Prepare(NamedTuple):
    """Parent to worker: load this beside what you serve."""

    rollout: int
    path: Path


class Commit(NamedTuple):
    """Parent to worker: serve it."""

    rollout: int


class Abandon(NamedTuple):
    """Parent to worker: forget it."""


class Done(NamedTuple):
    """Worker to parent: prepared, or why it could not be; or committed."""

    rollout: int
    refused: str | None = None


class Worker(Protocol):
    """One that serves."""

    def tell(self, message: Answer | Prepare | Commit | Abandon) -> None:
        """Send it; one that is gone hears nothing."""
        ...


class Asker(NamedTuple):
    """Whoever is told the outcome."""

    worker: Worker
    number: int


@dataclass
class _Rollout:
    number: int
    old: str
    path: Path
    asker: Asker | None
    workers: set[Worker] = field(default_factory=set)
    awaited: set[Worker] = field(default_factory=set)
    """Those whose Done to the last message is still to come."""
    committed: bool = False


class Rollouts:
    """The swaps of all workers, one at a time."""

    def __init__(self, versions: Versions, serving: Callable[[], Sequence[Worker]]) -> None:
        self._versions = versions
        self._serving = serving
        self._numbers = itertools.count(1)
        self._now: _Rollout | None = None

    @property
    def under_way(self) -> bool:
        """Whether another one would be refused."""
        return self._now is not None

    def begin(self, wanted: Wanted, asker: Asker | None = None) -> None:
        """Swap; there is at least one worker that serves."""
        old = self._versions.current.name
        try:
            if self._now:
                raise SwapConflict(BUSY)
            path = self._versions.choose(wanted)
        except SRGNNError as error:
            return self._tell(asker, Outcome.of_error(old, error))
        if path == self._versions.current:
            return self._tell(asker, Outcome(old, old))
        self._now = _Rollout(next(self._numbers), old, path, asker)
        for worker in self._serving():
            self.join(worker)

    def join(self, worker: Worker) -> None:
        """A worker that serves, or has just begun to, takes part in what is under way."""
        now = self._now
        if now and not now.committed:
            now.workers.add(worker)
            now.awaited.add(worker)
            worker.tell(Prepare(now.number, now.path))

    def hear(self, worker: Worker, done: Done) -> None:
        """A worker is done, or cannot be; of a rollout given up meanwhile nothing matters any more."""
        now = self._now
        if now is None or done.rollout != now.number:
            return
        if done.refused:
            self._abandon(now, done.refused)
        else:
            self._await_no_more(now, worker)

    def lose(self, worker: Worker) -> None:
        """A worker has died."""
        now = self._now
        if now is None or worker not in now.workers:
            return
        now.workers.discard(worker)
        if now.committed:
            self._await_no_more(now, worker)
        else:
            self._abandon(now, "a worker died while it made the new model ready: its log may say why")

    def stop(self) -> None:
        """Workers are not heard any more: end what is under way. Those told to commit do so before they stop."""
        if self._now and self._now.committed:
            self._end(self._now, Outcome(self._now.old, self._now.path.name))
        elif self._now:
            self._abandon(self._now, STOPPING)

    def _await_no_more(self, now: _Rollout, worker: Worker) -> None:
        """Take the next step after the last one that was awaited."""
        now.awaited.discard(worker)
        if now.awaited:
            return
        if now.committed:
            self._end(now, Outcome(now.old, now.path.name))
        else:
            self._commit(now)

    def _commit(self, now: _Rollout) -> None:
        now.committed, now.awaited = True, set(now.workers)
        self._versions.moved_to(now.path)
        for worker in now.workers:
            worker.tell(Commit(now.number))

    def _abandon(self, now: _Rollout, cause: str) -> None:
        """Leave all workers as they are."""
        for worker in now.workers:
            worker.tell(Abandon())
        self._end(now, Outcome(now.old, now.old, cause))

    def _end(self, now: _Rollout, outcome: Outcome) -> None:
        self._now = None
        self._tell(now.asker, outcome)

    def _tell(self, asker: Asker | None, outcome: Outcome) -> None:
        outcome.log()
        serving = self._serving()
        if asker and asker.worker in serving:
            asker.worker.tell(Answer(asker.number, outcome))
        elif serving:
            serving[0].tell(Answer(None, outcome))
