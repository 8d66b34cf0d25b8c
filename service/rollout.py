"""A swap over several workers: all of them have made the new model ready before the first one answers with it.

The parent says PREPARE, each worker loads and says that it is ready or why not; then the parent says COMMIT to all, or
ABANDON to all where one could not or died. Whoever asked is told when the last one has swapped. Needs no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from srgnn.errors import SRGNNError

from .versions import BUSY, Outcome, SwapConflict, Versions, Wanted


class Ask(NamedTuple):
    """Worker to parent: swap, please."""

    number: int
    wanted: Wanted


class Answer(NamedTuple):
    """Parent to worker: what became of it; of a swap that no worker asked for it has no number. Told to one of them,
    which counts it."""

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
    """Worker to parent: prepared, or committed; or why it could not be prepared."""

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
    path: Path
    asker: Asker | None
    workers: set[Worker]
    waiting: set[Worker] = field(default_factory=set)
    """For their Done to the last message."""
    committed: bool = False


class Rollouts:
    """The swaps of all workers, one at a time."""

    def __init__(self, versions: Versions, serving: Callable[[], Sequence[Worker]]) -> None:
        self._versions = versions
        self._serving = serving
        self._number = 0
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
            refused = Outcome(old, old, str(error), conflict=isinstance(error, SwapConflict))
            return self._tell(asker, refused)
        if path == self._versions.current:
            return self._tell(asker, Outcome(old, old))
        self._number += 1
        self._now = _Rollout(path, asker, set())
        for worker in self._serving():
            self.join(worker)

    def join(self, worker: Worker) -> None:
        """A worker that serves, or has just begun to, takes part in what is under way."""
        if self._now and not self._now.committed:
            self._now.workers.add(worker)
            self._now.waiting.add(worker)
            worker.tell(Prepare(self._number, self._now.path))

    def hear(self, worker: Worker, done: Done) -> None:
        """Of an earlier one, given up meanwhile, nothing matters any more."""
        if self._now and done.rollout == self._number:
            if done.refused:
                self.abandon(done.refused)
            else:
                self._done(self._now, worker)

    def lose(self, worker: Worker) -> None:
        """A worker has died."""
        if self._now and worker in self._now.workers:
            self._now.workers.discard(worker)
            if self._now.committed:
                self._done(self._now, worker)
            else:
                self.abandon("a worker died while it made the new model ready: its log may say why")

    def abandon(self, cause: str) -> None:
        """Leave all workers as they are, unless all of them are ready already."""
        if self._now and not self._now.committed:
            for worker in self._now.workers:
                worker.tell(Abandon())
            old = self._versions.current.name
            self._end(Outcome(old, old, cause))

    def _done(self, now: _Rollout, worker: Worker) -> None:
        now.waiting.discard(worker)
        if now.waiting:
            return
        if now.committed:
            assert self._versions.previous
            return self._end(Outcome(self._versions.previous.name, now.path.name))
        now.committed, now.waiting = True, set(now.workers)
        self._versions.moved_to(now.path)
        for each in now.workers:
            each.tell(Commit(self._number))

    def _end(self, outcome: Outcome) -> None:
        assert self._now
        asker, self._now = self._now.asker, None
        self._tell(asker, outcome)

    def _tell(self, asker: Asker | None, outcome: Outcome) -> None:
        outcome.log()
        serving = self._serving()
        if asker and asker.worker in serving:
            asker.worker.tell(Answer(asker.number, outcome))
        elif serving:
            serving[0].tell(Answer(None, outcome))
