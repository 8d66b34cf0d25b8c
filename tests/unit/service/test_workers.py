"""What the parent decides; tests/integration/test_workers.py runs it over real processes."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import pytest

from service import cli, workers
from service.settings import load_settings
from service.telemetry import METRICS_DIRECTORY
from service.workers import LOADED, RETRY_SECONDS, SERVE, Supervisor, WorkerFailed, _Worker
from srgnn.errors import ArtifactError


class Process:
    """As much of a process as its parent looks at."""

    def __init__(self, pid: int) -> None:
        self.pid, self.exitcode, self.signals = pid, cast(int | None, None), list[str]()

    def join(self, timeout: float | None = None) -> None:
        if timeout is None:
            self.exitcode = self.exitcode or 0

    def terminate(self) -> None:
        self.signals.append("terminate")
        self.exitcode = 0

    def kill(self) -> None:
        self.signals.append("kill")
        self.exitcode = -9


class Parent:
    """A supervisor of two, and the other ends of its workers' pipes in the order they were started."""

    def __init__(self) -> None:
        settings = load_settings(workers=2, redis_url="redis://127.0.0.1:1/0", port=0)
        self.supervisor = Supervisor(settings, cli.open_listener(settings))
        self.pipes: list[Connection] = []
        self.replacements: list[bool] = []
        self.stop, self.stop_writer = multiprocessing.Pipe(duplex=False)

    def start(self, settings: object, listener: object, *, replaces_another: bool) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        self.pipes.append(theirs)
        self.replacements.append(replaces_another)
        return _Worker(Process(1000 + len(self.pipes)), ours)  # type: ignore[arg-type]

    def turn(self) -> None:
        """One turn of the parent's loop."""
        self.supervisor._fill_up()
        self.stop_writer.send(0)  # so that it does not wait where nothing is to be heard
        self.supervisor._wait(self.stop)
        self.stop.recv()

    def serving(self) -> None:
        self.turn()
        for pipe in self.pipes:
            pipe.send(LOADED)
        self.turn()
        assert [pipe.recv() for pipe in self.pipes] == [SERVE, SERVE]

    def listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(self.supervisor.listener.getsockname()) == 0

    @property
    def processes(self) -> list[Process]:
        return [cast(Process, worker.process) for worker in self.supervisor._workers]


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Parent]:
    parent = Parent()
    monkeypatch.setattr(workers, "_start", parent.start)
    monkeypatch.setenv(METRICS_DIRECTORY, str(tmp_path))
    yield parent
    parent.supervisor.listener.close()
    for pipe in [*parent.pipes, *(worker.pipe for worker in parent.supervisor._workers), parent.stop]:
        pipe.close()
    parent.stop_writer.close()


def test_the_first_worker_to_read_latest_decides_for_all(parent: Parent) -> None:
    parent.turn()
    parent.pipes[1].send(Path("new"))
    parent.turn()
    parent.pipes[0].send(Path("newer"))
    parent.turn()
    assert [pipe.recv() for pipe in parent.pipes] == [Path("new"), Path("new")]


def test_the_port_opens_when_all_have_loaded(parent: Parent) -> None:
    parent.turn()
    parent.pipes[0].send(LOADED)
    parent.turn()
    assert not parent.listens()
    assert not parent.pipes[0].poll()
    parent.pipes[1].send(LOADED)
    parent.turn()
    assert parent.listens()
    assert [pipe.recv() for pipe in parent.pipes] == [SERVE, SERVE]


def test_what_keeps_a_worker_from_starting_is_raised(parent: Parent) -> None:
    parent.turn()
    parent.pipes[0].send(ArtifactError("damaged"))
    parent.turn()
    parent.pipes[0].close()
    with pytest.raises(ArtifactError, match="damaged"):
        parent.turn()


def test_a_worker_that_ends_without_a_word_before_serving_is_raised(parent: Parent) -> None:
    parent.turn()
    parent.processes[0].exitcode = -9
    parent.pipes[0].close()
    with pytest.raises(WorkerFailed, match="exit code -9 before it could serve"):
        parent.turn()


def test_a_worker_that_died_is_replaced_at_once_and_its_successor_serves_when_loaded(
    parent: Parent, caplog: pytest.LogCaptureFixture
) -> None:
    parent.serving()
    parent.processes[0].exitcode = -9
    parent.pipes[0].close()
    parent.turn()
    assert "a worker died and is replaced" in caplog.text
    parent.turn()
    assert parent.replacements == [False, False, True]
    parent.pipes[2].send(LOADED)
    parent.turn()
    assert parent.pipes[2].recv() == SERVE
    assert not parent.pipes[1].poll()


@pytest.mark.parametrize("how", ["cannot load", "cannot start its server"])
def test_a_replacement_that_cannot_start_is_tried_again_later(
    parent: Parent, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parent.serving()
    parent.processes[0].exitcode = 3 if how == "cannot start its server" else -9
    parent.pipes[0].close()
    parent.turn()
    if how == "cannot load":
        parent.turn()
        parent.pipes[2].close()
        parent.turn()
    assert "cannot be replaced, the others go on" in caplog.text
    started = len(parent.pipes)
    parent.turn()
    assert len(parent.pipes) == started
    now = workers.time.monotonic()
    monkeypatch.setattr(workers.time, "monotonic", lambda: now + RETRY_SECONDS)
    parent.turn()
    assert len(parent.pipes) == started + 1


def test_replacements_that_cannot_start_end_the_service_when_no_worker_is_left(parent: Parent) -> None:
    parent.serving()
    for number in (0, 1):
        parent.processes[0].exitcode = -9
        parent.pipes[number].close()
        parent.turn()
    parent.turn()
    parent.pipes[2].close()
    parent.turn()
    parent.pipes[3].send(ArtifactError("damaged"))
    parent.turn()
    parent.pipes[3].close()
    with pytest.raises(ArtifactError, match="damaged"):
        parent.turn()


def test_a_stop_lets_those_that_serve_finish_and_kills_those_that_load(parent: Parent) -> None:
    parent.serving()
    parent.pipes[0].close()
    parent.turn()
    parent.turn()
    serving, loading = parent.processes
    parent.supervisor._end()
    assert (serving.signals, loading.signals) == (["terminate"], ["kill"])
    assert parent.supervisor.listener.fileno() == -1


def test_a_worker_that_does_not_end_is_killed(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    parent.serving()
    stuck, other = parent.processes
    monkeypatch.setattr(stuck, "terminate", lambda: None)
    parent.supervisor._end()
    assert (stuck.signals, other.signals) == (["kill"], ["terminate"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_can_be_waited_for_like_a_message(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with workers._stop_signal() as stop:
        assert not stop.poll()
        os.kill(os.getpid(), number)
        assert stop.poll(5)
    assert signal.getsignal(number) == before


def test_the_metrics_directory_is_new_named_for_the_workers_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METRICS_DIRECTORY, "before")
    with workers._metrics_directory() as directory:
        assert os.environ[METRICS_DIRECTORY] == directory
        assert os.listdir(directory) == []
    assert os.environ[METRICS_DIRECTORY] == "before"
    assert not Path(directory).exists()
