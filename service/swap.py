"""Another model in the place of the one that answers, without a request noticing.

The new one is loaded, checked and warmed beside the old one on a thread of its own; then :class:`service.state.Live`
holds it, and every request that begins from there on works with it. Those under way end with the old one, which is gone
with the last of them. Only its path is kept: a rollback loads and checks it again.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import numpy as np

from srgnn import artifact
from srgnn.artifact import Artifact
from srgnn.engine import Engine
from srgnn.errors import ConfigError, EngineError, SRGNNError
from srgnn.garbage import settle
from srgnn.recommender import Recommender
from srgnn.threads import limit_threads

from .inference import Query, infer
from .settings import PREFIX, Settings
from .state import Live
from .versions import BUSY, Outcome, SwapConflict, SwapRefused, Versions, Wanted

logger = logging.getLogger(__name__)

PREPARE_SECONDS = 600
"""Longest that a model may take to be made ready; a disk that hangs must not forbid swaps for ever."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Swapper:
    """The two steps of a swap in this process: :meth:`prepare`, then :meth:`commit` or :meth:`abandon`."""

    def __init__(self, live: Live, versions: Versions) -> None:
        self._live = live
        self.versions = versions
        self._next: Artifact | None = None
        self.frozen = False
        """Whether what stays is not looked through for cycles (service.cli); asking Python itself takes 0.1 s."""

    async def prepare(self, path: Path) -> None:
        """Make an artifact ready beside the one that answers. Raises SRGNNError with what is wrong with it."""
        try:
            async with asyncio.timeout(PREPARE_SECONDS):
                self._next = await in_thread(load_warm, self._live.service.settings, path)
        except SRGNNError:
            raise
        except TimeoutError:
            raise SwapRefused(f"{path} was not loaded within {PREPARE_SECONDS} s: is its disk slow?") from None
        except Exception as error:
            logger.exception("a new model cannot be loaded")
            raise SwapRefused(f"{path} cannot be loaded: {error!r}") from error

    def commit(self) -> None:
        """Let the prepared model answer from now on."""
        assert self._next
        self._live.serve(self._next.recommender, self._next.manifest, previous=self.versions.current.name)
        self._live.service.metrics.serves(self._next.name, self._next.created)
        self.versions.moved_to(self._next.path)
        self._next = None
        if self.frozen:
            settle()

    def abandon(self) -> None:
        """Forget the prepared model."""
        self._next = None

    def count(self, outcome: Outcome) -> None:
        """In the metrics."""
        if outcome.result != "unchanged":
            self._live.service.metrics.swaps.labels(outcome.result).inc()


class Alone(Swapper):
    """The swaps of a service of one process. ``async with`` it, and it follows LATEST."""

    def __init__(self, live: Live, versions: Versions) -> None:
        super().__init__(live, versions)
        self._under_way = asyncio.Lock()
        self._asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> "Alone":
        self._loop = asyncio.get_running_loop()
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._following.cancel()
        await asyncio.wait({self._following})

    async def swap(self, wanted: Wanted, *, patient: bool = False) -> Outcome:
        """Swap, and tell log and metrics; ``patient`` waits for another swap that is under way."""
        outcome = await self._swap(wanted, patient)
        outcome.log()
        self.count(outcome)
        return outcome

    def look_again(self) -> None:
        """Swap to what the setting names by now, soon. For signal handlers."""
        if self._loop is None:
            self._asked.set()
        else:
            self._loop.call_soon_threadsafe(self._asked.set)

    async def _swap(self, wanted: Wanted, patient: bool) -> Outcome:
        old = self.versions.current.name
        try:
            if self._under_way.locked() and not patient:
                raise SwapConflict(BUSY)
            async with self._under_way:
                old = self.versions.current.name
                path = await in_thread(self.versions.choose, wanted)
                if path != self.versions.current:
                    await self.prepare(path)
                    self.commit()
        except SRGNNError as error:
            return Outcome.of_error(old, error)
        return Outcome(old, path.name)

    async def _follow(self) -> None:
        seconds = self._live.service.settings.watch_seconds or None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._asked.wait()
            if self._asked.is_set() or await in_thread(self.versions.latest_changed):
                self._asked.clear()
                await self.swap(Wanted(), patient=True)


def load_warm(settings: Settings, path: Path) -> Artifact:
    """Load an artifact and answer its probes as requests are answered, so that the first one waits for nothing."""
    limit_threads(settings.torch_threads)
    loaded = load(settings, path)
    k = min(settings.k, len(loaded.recommender.vocabulary))
    probes = [Query(history, k, exclude_seen=True, explain=True) for history in artifact.probe_histories(path)]
    for batch in (probes[:1], probes):
        infer(loaded.recommender, batch)
    return loaded


def load(settings: Settings, path: Path) -> Artifact:
    """A checked artifact that fits the settings, and whose engine runs. Raises ArtifactError or ConfigError."""
    loaded = artifact.load(path)
    check_keeps_enough(settings, loaded.recommender)
    start_engine(loaded.recommender)
    return loaded


def start_engine(recommender: Recommender) -> None:
    """Where the model has one: it has answered once then, and the first request does not wait for it."""
    engine = Engine.of(recommender.scorer)
    if engine is None:
        return
    try:
        engine.top_k([np.zeros(1, np.int64)], 1)
    except EngineError:
        logger.exception("answers are found on the event loop")
    else:
        recommender.engine = engine


def check_keeps_enough(settings: Settings, recommender: Recommender) -> None:
    """Fewer stored clicks than the model looks at would change its input, which no setting may. Raises ConfigError."""
    needed = recommender.rules.max_length
    if settings.max_clicks < needed:
        raise ConfigError(
            f"{PREFIX}MAX_CLICKS is {settings.max_clicks}, but model {recommender.version} looks at the last "
            f"{needed} clicks of a session: set it to {needed} or more"
        )


async def in_thread(work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """``work`` on a thread of its own, which ends with the process: a stop does not wait for a slow disk."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def run() -> None:
        try:
            tell(future.set_result, work(*args, **kwargs))
        except Exception as error:
            tell(future.set_exception, error)

    def tell(hand_over: Callable[[Any], None], result: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if future.done() else hand_over(result))

    threading.Thread(target=run, name="swap", daemon=True).start()
    return await future
