"""A worker's part in what its parent does for all of them: swaps, and being seen to be alive."""

import asyncio
import itertools
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from srgnn.errors import SRGNNError

from .rollout import Abandon, Answer, Ask, Commit, Done, Prepare
from .state import Live
from .swap import Swapper
from .versions import STOPPING, Outcome, Wanted
from .worker import Link

BEAT_SECONDS = 0.5


class Member(Swapper):
    """The swaps of one of several workers: its parent decides. ``async with`` it, and it listens."""

    def __init__(self, live: Live, link: Link) -> None:
        super().__init__(live, link.versions)
        self._link = link
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Outcome]] = {}
        self._preparing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Member":
        asyncio.get_running_loop().add_reader(self._link.pipe.fileno(), self._hear)
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._link.pipe.fileno())
        self._beating.cancel()

    async def swap(self, wanted: Wanted) -> Outcome:
        """Ask the parent for it."""
        number = next(self._numbers)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            self._link.pipe.send(Ask(number, wanted))
            return await future
        except OSError:
            model = self.versions.current.name
            return Outcome(model, model, STOPPING, conflict=True)
        finally:
            del self._asked[number]

    def _hear(self) -> None:
        try:
            message = self._link.pipe.recv()
        except (EOFError, OSError):
            return self._hear_no_more()
        match message:
            case Prepare(rollout, path):
                self._preparing = asyncio.create_task(self._prepare(rollout, path))
            case Commit(rollout):
                self.commit()
                self._tell(Done(rollout))
            case Abandon():
                if self._preparing:
                    self._preparing.cancel()
                self.abandon()
            case Answer(number, outcome):
                self.count(outcome)
                if number in self._asked and not self._asked[number].done():
                    self._asked[number].set_result(outcome)

    def _hear_no_more(self) -> None:
        """The parent stops, or is gone; either ends this worker too."""
        asyncio.get_running_loop().remove_reader(self._link.pipe.fileno())
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(BrokenPipeError())

    async def _prepare(self, rollout: int, path: Path) -> None:
        refused = None
        try:
            await self.prepare(path)
        except SRGNNError as error:
            refused = str(error)
        self._tell(Done(rollout, refused))

    def _tell(self, done: Done) -> None:
        with suppress(OSError):  # the parent listens no more: see _hear_no_more
            self._link.pipe.send(done)

    async def _beat(self) -> None:
        while True:
            self._link.beats.value += 1
            await asyncio.sleep(BEAT_SECONDS)
