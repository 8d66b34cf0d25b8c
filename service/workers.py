"""Several processes that answer on one port, and the parent that starts, watches and ends them.

All accept from one listening socket, so that a connection goes to a worker that has time for it, and one that waits
while a worker dies is taken by another. All map the files of one artifact, whose pages the machine holds once. Parent
and worker have a pipe:

    worker: what the settings' artifact is     parent: the artifact to serve, for all the same
    worker: LOADED, or why it cannot           parent: SERVE, to the first workers once all have loaded
    either is gone: the pipe is at its end

The port opens with the first SERVE. uvicorn's own supervisor does none of this: it starts a worker that cannot load
over and over, and its workers outlive it. The parent imports no torch.

Metrics: each worker keeps its values in files of a directory that all share, and whichever is asked adds them up.
"""

import asyncio
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE

from srgnn.errors import SRGNNError

from .cli import STOP_SIGNALS, check_store, log_serving, run_server, start_listening
from .settings import Settings
from .telemetry import METRICS_DIRECTORY, configure_logging, requests_answered

logger = logging.getLogger(__name__)

LOADED, SERVE = "loaded", "serve"
RETRY_SECONDS = 10
"""Pause after a replacement that could not start, so that a lasting cause costs little while the others serve."""
OVERTIME_SECONDS = 5
"""What a worker may take to end beyond ``shutdown_seconds`` before it is killed."""

spawn = multiprocessing.get_context("spawn")  # a fork would take over locks of threads that it does not have


class WorkerFailed(SRGNNError):
    """A worker ended before it could serve, and said nothing."""


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: "Connection"
    loaded: bool = False
    serving: bool = False
    failure: SRGNNError | None = None

    def tell(self, message: Path | str) -> None:
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
    _artifact: Path | None = None
    _opened: float | None = None
    _retry_at: float = 0.0

    def run(self) -> tuple[int, float]:
        """Serve until SIGTERM or Ctrl-C; the number of requests answered, and the seconds since the port opened.

        Raises what kept the workers from starting: ArtifactError, ConfigError, StoreUnavailable or WorkerFailed.
        """
        with _metrics_directory() as metrics, _stop_signal() as stop:
            try:
                while not stop.poll():
                    self._fill_up()
                    self._wait(stop)
            finally:
                self._end()
            return requests_answered(metrics), time.monotonic() - self._opened if self._opened else 0.0

    def _fill_up(self) -> None:
        while len(self._workers) < self.settings.workers and time.monotonic() >= self._retry_at:
            self._workers.append(_start(self.settings, self.listener, replaces_another=self._opened is not None))

    def _wait(self, stop: "Connection") -> None:
        """Until a worker says something or ends, a stop is asked for, or a replacement is due."""
        missing = len(self._workers) < self.settings.workers
        seconds = max(0.0, self._retry_at - time.monotonic()) if missing else None
        heard = wait([stop, *(worker.pipe for worker in self._workers)], seconds)
        for worker in [worker for worker in self._workers if worker.pipe in heard]:
            self._hear(worker)
        self._let_serve()

    def _hear(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        if isinstance(message, SRGNNError):
            worker.failure = message
        elif message == LOADED:
            worker.loaded = True
        else:  # LATEST may change between two who read it: the first decides, also for all who come later
            self._artifact = self._artifact or message
            worker.tell(self._artifact)

    def _let_serve(self) -> None:
        if not self._opened:
            if not all(worker.loaded for worker in self._workers):
                return
            start_listening(self.settings, self.listener)
            self._opened = time.monotonic()
            log_serving(self.settings, self.listener, str(self._artifact))
        for worker in self._workers:
            if worker.loaded and not worker.serving:
                worker.serving = True
                worker.tell(SERVE)

    def _lost(self, worker: _Worker) -> None:
        """Replace it now, or later where it could not start. Raises its failure where no other is left."""
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        mark_process_dead(worker.process.pid, os.environ[METRICS_DIRECTORY])  # type: ignore[no-untyped-call]
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

    def _end(self) -> None:
        """Refuse new connections, let each worker finish what is under way."""
        self.listener.close()
        for worker in self._workers:
            if worker.serving:
                worker.process.terminate()
            else:  # it has nothing to finish
                worker.process.kill()
        deadline = time.monotonic() + self.settings.shutdown_seconds + OVERTIME_SECONDS
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.exitcode is None:
                logger.error("a worker did not end in time and is killed", extra={"fields": worker.fields})
                worker.process.kill()
                worker.process.join()


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
def _stop_signal() -> Iterator["Connection"]:
    """A pipe with something to read once SIGTERM or SIGINT came, so that one wait hears workers and signals."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    previous = {number: signal.signal(number, lambda number, _: writer.send(number)) for number in STOP_SIGNALS}
    try:
        yield reader
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def _start(settings: Settings, listener: socket.socket, *, replaces_another: bool) -> _Worker:
    ours, theirs = spawn.Pipe()
    # daemon: ended with the parent where that fails unexpectedly
    process = spawn.Process(target=_work, args=(settings, listener, theirs, replaces_another), daemon=True)
    resource_tracker.ensure_running()  # its start would let signals through
    # Ctrl-C in a terminal reaches a worker too. It inherits that signals wait, until run_server can handle them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Worker(process, ours)


def _work(settings: Settings, listener: socket.socket, pipe: "Connection", replaces_another: bool) -> None:
    """One worker's life, in its own process."""
    configure_logging(settings.log_level)
    threading.Thread(target=_end_with_parent, args=(settings.shutdown_seconds,), daemon=True).start()
    try:
        app = _load(settings, pipe, replaces_another)
        pipe.send(LOADED)
        pipe.recv()
    except SRGNNError as error:
        pipe.send(error)
    except (EOFError, ConnectionError):
        pass  # the parent is gone
    else:
        run_server(app, settings, listener)
    parent = multiprocessing.parent_process()
    if parent and not parent.is_alive():
        shutil.rmtree(os.environ[METRICS_DIRECTORY], ignore_errors=True)


def _load(settings: Settings, pipe: "Connection", replaces_another: bool) -> FastAPI:
    from srgnn.directory import resolve

    from .app import create_app

    pipe.send(resolve(settings.artifact))
    app = create_app(settings.model_copy(update={"artifact": pipe.recv()}))
    if replaces_another:
        app.state.metrics.replacements.inc()
    else:  # later on, a store that does not answer is no reason not to serve
        asyncio.run(check_store(settings))
    return app


def _end_with_parent(shutdown_seconds: int) -> None:
    """Stop gracefully when the parent is gone, however it went; by force where that does not work."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(shutdown_seconds + OVERTIME_SECONDS)
    os._exit(1)
