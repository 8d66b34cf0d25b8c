"""Several processes that answer on one port, and the parent that starts, watches and ends them.

All accept from one listening socket: a connection goes to the worker that has fewest (:mod:`service.sharing`), and one
that waits while a worker dies is taken by another. All map the files of one artifact, whose pages the machine holds
once. Parent and worker (:mod:`service.worker`) have a pipe:

    worker: LOADED, or why it cannot           parent: SERVE, to the first workers once all have loaded
    swaps: see service/rollout.py
    either is gone, or stops: the pipe is at its end

and a count that the worker's event loop moves: one that stands still for ``hang_seconds`` means a worker to be killed.

The port opens with the first SERVE. uvicorn's own supervisor does none of this: it starts a worker that cannot load
over and over, and its workers outlive it. The parent imports no torch.

Metrics: each worker keeps its values in files of a directory that all share, and whichever is asked adds them up.
"""

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import c_long, c_ulong
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE

from srgnn.errors import SRGNNError

from .cli import STOP_SIGNALS, log_serving, start_listening
from .rollout import Ask, Asker, Done, Rollouts
from .settings import Settings
from .sharing import NOBODY, Share
from .telemetry import METRICS_DIRECTORY, requests_answered
from .versions import Versions, Wanted
from .worker import LOADED, SERVE, Link, stop_seconds, work

logger = logging.getLogger(__name__)

SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)
RETRY_SECONDS = 10
"""Pause after a replacement that could not start, so that a lasting cause costs little while the others serve."""
LOOK_SECONDS = 1.0
"""How often the parent looks at what no message tells: LATEST, and whether the workers move."""

spawn = multiprocessing.get_context("spawn")  # a fork would take over locks of threads that it does not have


class WorkerFailed(SRGNNError):
    """A worker ended before it could serve, and said nothing."""


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: "Connection"
    beats: c_ulong
    share: Share
    artifact: Path
    loaded: bool = False
    serving: bool = False
    outdated: bool = False
    """Killed because it had loaded what is no longer served."""
    failure: SRGNNError | None = None
    seen_beats: int = 0
    moved: float = 0.0
    """When ``seen_beats`` was last another number."""

    def tell(self, message: object) -> None:
        with suppress(OSError):  # it is gone, which the end of the pipe will tell
            self.pipe.send(message)

    @property
    def fields(self) -> dict[str, object]:
        """For the log."""
        return {"worker": self.process.pid, "exit_code": self.process.exitcode}


@dataclass
class Supervisor:
    """The parent of ``settings.workers`` workers, all of which accept from ``listener``."""

    settings: Settings
    listener: socket.socket
    _workers: list[_Worker] = field(default_factory=list)
    _opened: float | None = None
    _stopped: bool = False
    _retry_at: float = 0.0
    _look_again: bool = False
    """At what the setting names: SIGHUP came."""
    _followed: float = 0.0
    """When LATEST was last looked at."""
    _looked: float = 0.0
    """When the workers were last looked at."""

    def __post_init__(self) -> None:
        self._versions = Versions(self.settings.artifact)
        self._rollouts = Rollouts(self._versions, self._serving)
        self._connections = spawn.RawArray(c_long, [NOBODY] * self.settings.workers)

    def run(self) -> tuple[int, float]:
        """Serve until SIGTERM or Ctrl-C; the number of requests answered, and the seconds since the port opened.

        Raises what kept the workers from starting: ArtifactError, ConfigError, StoreMisconfigured or WorkerFailed.
        """
        with _metrics_directory() as metrics, _signals() as signals:
            try:
                while not self._stopped:
                    self._fill_up()
                    self._wait(signals)
                    self._follow()
                    self._kill_hung()
            finally:
                self._end(signals)
            return requests_answered(metrics), time.monotonic() - self._opened if self._opened else 0.0

    def _serving(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.serving]

    def _fill_up(self) -> None:
        while len(self._workers) < self.settings.workers and time.monotonic() >= self._retry_at:
            replaces_another = self._opened is not None
            share = Share(self._connections, self._free_index())
            self._workers.append(_start(self.settings, self.listener, share, self._versions, replaces_another))

    def _free_index(self) -> int:
        taken = {worker.share.index for worker in self._workers}
        return next(index for index in range(self.settings.workers) if index not in taken)

    def _wait(self, signals: "Connection") -> None:
        """Until a worker says something or ends, a signal comes, or there is something to be looked at."""
        heard = wait([signals, *(worker.pipe for worker in self._workers)], LOOK_SECONDS)
        if signals in heard:
            number = signals.recv()
            self._look_again |= number == signal.SIGHUP
            self._stopped |= number in STOP_SIGNALS
        for worker in [worker for worker in self._workers if worker.pipe in heard]:
            self._hear(worker)
        self._let_serve()

    def _hear(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        match message:
            case SRGNNError():
                worker.failure = message
            case Ask(number, wanted):
                self._rollouts.begin(wanted, Asker(worker, number))
            case Done():
                self._rollouts.hear(worker, message)
            case _:
                assert message == LOADED
                worker.loaded = True

    def _let_serve(self) -> None:
        if not self._opened:
            if not all(worker.loaded for worker in self._workers):
                return
            start_listening(self.settings, self.listener)
            self._opened = time.monotonic()
            log_serving(self.settings, self.listener, str(self._versions.current))
        for worker in self._workers:
            if not worker.loaded or worker.serving or worker.outdated:
                continue
            if worker.artifact != self._versions.current:  # swapped meanwhile; the next one loads the new model
                worker.outdated = True
                worker.process.kill()
                continue
            worker.serving, worker.moved = True, time.monotonic()
            worker.tell(SERVE)
            self._rollouts.join(worker)

    def _follow(self) -> None:
        """Swap to what the setting names, after SIGHUP or when LATEST has changed."""
        if not self._serving() or self._rollouts.under_way:
            return
        seconds, now = self.settings.watch_seconds, time.monotonic()
        due = bool(seconds) and now >= self._followed + seconds
        if due:
            self._followed = now
        if self._look_again or (due and self._versions.latest_changed()):
            self._look_again = False
            self._rollouts.begin(Wanted())

    def _kill_hung(self) -> None:
        now = time.monotonic()
        paused = now - self._looked > 5 * LOOK_SECONDS  # so were the workers perhaps, with the whole machine
        self._looked = now
        for worker in self._serving():
            if worker.beats.value != worker.seen_beats or paused:
                worker.seen_beats, worker.moved = worker.beats.value, now
            elif self.settings.hang_seconds and now - worker.moved >= self.settings.hang_seconds:
                logger.error("a worker hangs and is killed", extra={"fields": worker.fields})
                worker.process.kill()
                worker.moved = now

    def _lost(self, worker: _Worker) -> None:
        """Replace it now, or later where it could not start. Raises its failure where no other is left."""
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        worker.share.leave()
        self._rollouts.lose(worker)
        mark_process_dead(worker.process.pid, os.environ[METRICS_DIRECTORY])  # type: ignore[no-untyped-call]
        if worker.outdated:
            return
        if worker.serving and worker.process.exitcode != STARTUP_FAILURE:
            logger.error("a worker died and is replaced", extra={"fields": worker.fields})
            return
        failure = worker.failure or WorkerFailed(
            f"a worker ended with exit code {worker.process.exitcode} before it could serve: its log says why"
        )
        if not self._opened or not self._workers:
            raise failure
        self._retry_at = time.monotonic() + RETRY_SECONDS
        fields = {**worker.fields, "cause": str(failure), "retry_seconds": RETRY_SECONDS}
        logger.error("a worker cannot be replaced, the others go on", extra={"fields": fields})

    def _end(self, signals: "Connection") -> None:
        """Let each worker finish what is under way, and new requests while it drains; a second signal ends that."""
        self._rollouts.stop()
        self.listener.close()
        for worker in self._workers:
            worker.pipe.close()  # nobody listens from here on: who asks for a swap must not wait for an answer
            if worker.serving:
                worker.process.terminate()
            else:  # it has nothing to finish
                worker.process.kill()
        deadline = time.monotonic() + stop_seconds(self.settings)
        while running := {worker.process.sentinel: worker for worker in self._workers if _runs(worker)}:
            heard = wait([signals, *running], max(0.0, deadline - time.monotonic()))
            late = time.monotonic() >= deadline
            if late or (signals in heard and signals.recv() in STOP_SIGNALS):
                for worker in running.values():
                    self._end_now(worker, by_force=late)

    def _end_now(self, worker: _Worker, *, by_force: bool) -> None:
        if not by_force:
            return worker.process.terminate()
        logger.error("a worker did not end in time and is killed", extra={"fields": worker.fields})
        worker.process.kill()
        worker.process.join()


def _runs(worker: _Worker) -> bool:
    return worker.process.exitcode is None


@contextmanager
def _metrics_directory() -> Iterator[str]:
    """A directory for this service alone, named in the environment of the workers."""
    before = os.environ.get(METRICS_DIRECTORY)
    with tempfile.TemporaryDirectory(prefix="srgnn-metrics-") as directory:
        os.environ[METRICS_DIRECTORY] = directory
        try:
            yield directory
        finally:
            os.environ.pop(METRICS_DIRECTORY)
            if before is not None:
                os.environ[METRICS_DIRECTORY] = before


@contextmanager
def _signals() -> Iterator["Connection"]:
    """A pipe with the numbers of the signals that came, so that one wait hears workers and signals."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    previous = {number: signal.signal(number, lambda number, _: writer.send(number)) for number in SIGNALS}
    try:
        yield reader
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def _start(
    settings: Settings, listener: socket.socket, share: Share, versions: Versions, replaces_another: bool
) -> _Worker:
    ours, theirs = spawn.Pipe()
    beats = spawn.RawValue(c_ulong)
    link = Link(theirs, beats, share, versions)
    # daemon: ended with the parent where that fails unexpectedly
    process = spawn.Process(target=work, args=(settings, listener, link, replaces_another), daemon=True)
    resource_tracker.ensure_running()  # its start would let signals through
    # What a terminal sends reaches a worker too. It inherits that signals wait; it will handle SIGTERM, nothing else.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Worker(process, ours, beats, share, versions.current)
