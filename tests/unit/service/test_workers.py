"""What the parent decides; tests/integration/test_workers.py runs it over real processes."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from ctypes import c_ulong
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import pytest

from service import cli, workers
from service.rollout import Abandon, Answer, Ask, Commit, Done, Prepare
from service.settings import load_settings
from service.sharing import Share
from service.telemetry import METRICS_DIRECTORY
from service.versions import Outcome, Versions, Wanted
from service.worker import LOADED, SERVE
from service.workers import RETRY_SECONDS, Supervisor, WorkerFailed, _Worker
from srgnn.errors import ArtifactError
from tests.artifacts import folder_with_two, name_latest


class Process:
    """As much of a process as its parent looks at."""

    def __init__(self, pid: int) -> None:
        self.pid, self.exitcode, self.signals = pid, cast(int | None, None), list[str]()
        self.sentinel, self._end = multiprocessing.Pipe()

    def join(self, timeout: float | None = None) -> None:
        if timeout is None:
            self.exitcode = self.exitcode or 0

    def terminate(self) -> None:
        self.signals.append("terminate")
        self.exit(0)

    def kill(self) -> None:
        self.signals.append("kill")
        self.exit(-9)

    def exit(self, code: int) -> None:
        self.exitcode = code
        self._end.close()


class Parent:
    """A supervisor of two, and the other ends of its workers' pipes in the order they were started."""

    def __init__(self, artifact: Path) -> None:
        settings = load_settings(artifact=artifact, workers=2, redis_url="redis://127.0.0.1:1/0", port=0)
        self.supervisor = Supervisor(settings, cli.open_listener(settings))
        self.pipes: list[Connection] = []
        self.replacements: list[bool] = []
        self.beats: list[c_ulong] = []
        self.signals, self.signal_writer = multiprocessing.Pipe(duplex=False)

    def start(
        self, settings: object, listener: object, share: Share, versions: Versions, replaces_another: bool
    ) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        self.pipes.append(theirs)
        self.replacements.append(replaces_another)
        self.beats.append(c_ulong())
        process = cast(multiprocessing.context.SpawnProcess, Process(1000 + len(self.pipes)))
        return _Worker(process, ours, self.beats[-1], share, versions.current)

    def turn(self, number: int = 0) -> None:
        """One turn of the parent's loop, with a signal, so that it does not wait where nothing is to be heard."""
        self.supervisor._fill_up()
        self.signal_writer.send(number)
        self.supervisor._wait(self.signals)
        self.supervisor._follow()
        self.supervisor._kill_hung()

    def serving(self) -> None:
        self.turn()
        for pipe in self.pipes:
            pipe.send(LOADED)
        self.turn()
        assert [pipe.recv() for pipe in self.pipes] == [SERVE, SERVE]

    def listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(self.supervisor.listener.getsockname()) == 0

    def end(self) -> None:
        self.supervisor._end(self.signals)

    @property
    def processes(self) -> list[Process]:
        return [cast(Process, worker.process) for worker in self.supervisor._workers]


@pytest.fixture
def both(tiny_artifact: Path, tmp_path: Path) -> tuple[Path, Path]:
    """What LATEST names, and another."""
    return folder_with_two(tiny_artifact, tmp_path / "artifacts")


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, both: tuple[Path, Path]) -> Iterator[Parent]:
    parent = Parent(both[0].parent)
    monkeypatch.setattr(workers, "_start", parent.start)
    monkeypatch.setenv(METRICS_DIRECTORY, str(tmp_path))
    yield parent
    parent.supervisor.listener.close()
    for pipe in [*parent.pipes, *(worker.pipe for worker in parent.supervisor._workers), parent.signals]:
        pipe.close()
    parent.signal_writer.close()


def test_nothing_to_serve_is_told_before_any_worker_is_started(tmp_path: Path) -> None:
    with socket.socket() as listener, pytest.raises(ArtifactError, match="srgnn train"):
        Supervisor(load_settings(artifact=tmp_path), listener)


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
    parent.processes[0].exit(-9)
    parent.pipes[0].close()
    with pytest.raises(WorkerFailed, match="exit code -9 before it could serve"):
        parent.turn()


def test_a_worker_that_died_is_replaced_at_once_and_its_successor_serves_when_loaded(
    parent: Parent, caplog: pytest.LogCaptureFixture
) -> None:
    parent.serving()
    parent.processes[0].exit(-9)
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
    parent.processes[0].exit(3 if how == "cannot start its server" else -9)
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
        parent.processes[0].exit(-9)
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
    parent.end()
    assert (serving.signals, loading.signals) == (["terminate"], ["kill"])
    assert parent.supervisor.listener.fileno() == -1


def test_who_asks_for_a_swap_at_a_stop_finds_that_nobody_listens(parent: Parent) -> None:
    parent.serving()
    parent.end()
    with pytest.raises((EOFError, OSError)):
        parent.pipes[0].recv()


def test_a_worker_that_does_not_end_is_killed(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    parent.serving()
    stuck, other = parent.processes
    monkeypatch.setattr(workers, "stop_seconds", lambda settings: 0.1)
    monkeypatch.setattr(stuck, "terminate", lambda: None)
    parent.end()
    assert (stuck.signals, other.signals) == (["kill"], ["terminate"])


def test_a_second_signal_is_passed_on(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    parent.serving()
    draining, other = parent.processes
    before = draining.terminate
    monkeypatch.setattr(draining, "terminate", lambda: monkeypatch.setattr(draining, "terminate", before))
    parent.signal_writer.send(signal.SIGHUP)  # means nothing any more
    parent.signal_writer.send(signal.SIGTERM)
    parent.end()
    assert (draining.signals, other.signals) == (["terminate"], ["terminate"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_stops(parent: Parent, number: int) -> None:
    parent.serving()
    parent.turn()
    assert not parent.supervisor._stopped
    parent.turn(number)
    assert parent.supervisor._stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_can_be_waited_for_like_a_message(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with workers._signals() as signals:
        assert not signals.poll()
        os.kill(os.getpid(), number)
        assert signals.poll(5)
        assert signals.recv() == number
    assert signal.getsignal(number) == before


def swapped(parent: Parent, other: Path) -> None:
    """By both workers, who are asked for it."""
    assert [pipe.recv() for pipe in parent.pipes] == [Prepare(1, other)] * 2
    for message in (Commit(1), None):
        for pipe in parent.pipes:
            pipe.send(Done(1))
        parent.turn()
        assert message is None or [pipe.recv() for pipe in parent.pipes] == [message] * 2


def test_a_worker_asks_and_all_swap(parent: Parent, both: tuple[Path, Path]) -> None:
    tiny, other = both
    parent.serving()
    parent.pipes[1].send(Ask(5, Wanted(other.name)))
    parent.turn()
    swapped(parent, other)
    assert parent.pipes[1].recv() == Answer(5, Outcome(tiny.name, other.name))
    assert not parent.pipes[0].poll()


def test_sighup_is_a_swap_to_what_latest_names(parent: Parent, both: tuple[Path, Path]) -> None:
    tiny, other = both
    parent.supervisor._followed = float("inf")  # LATEST is not followed
    parent.turn(signal.SIGHUP)  # nobody serves yet: kept for later
    name_latest(tiny.parent, other.name)
    parent.serving()
    swapped(parent, other)
    assert parent.pipes[0].recv() == Answer(None, Outcome(tiny.name, other.name))


def test_latest_is_followed(parent: Parent, both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    parent.serving()
    name_latest(both[0].parent, both[1].name)
    parent.turn()
    assert not parent.pipes[0].poll(), "not due yet"
    now = workers.time.monotonic()
    monkeypatch.setattr(workers.time, "monotonic", lambda: now + 5)
    parent.turn()
    swapped(parent, both[1])


def test_a_worker_that_loaded_what_is_no_longer_served_is_started_anew(
    parent: Parent, both: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    parent.serving()
    parent.processes[1].exit(-9)
    parent.pipes[1].close()
    parent.turn()
    parent.turn()
    loading = parent.processes[1]
    caplog.clear()
    parent.supervisor._versions.moved_to(both[1])
    parent.pipes[2].send(LOADED)
    parent.turn()
    assert loading.signals == ["kill"]
    parent.pipes[2].close()
    parent.turn()
    parent.turn()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    parent.pipes[3].send(LOADED)
    parent.turn()
    assert parent.pipes[3].recv() == SERVE


def test_a_worker_that_dies_in_a_swap_ends_it_for_the_others(parent: Parent, both: tuple[Path, Path]) -> None:
    parent.serving()
    parent.pipes[0].send(Ask(0, Wanted(both[1].name)))
    parent.turn()
    parent.processes[1].exit(-9)
    parent.pipes[1].close()
    parent.turn()
    assert [type(parent.pipes[0].recv()) for _ in range(3)] == [Prepare, Abandon, Answer]
    assert parent.supervisor._versions.current == both[0]


def pass_seconds(parent: Parent, monkeypatch: pytest.MonkeyPatch, seconds: int, beating: list[c_ulong]) -> None:
    for _ in range(seconds):
        now = workers.time.monotonic()
        monkeypatch.setattr(workers.time, "monotonic", lambda now=now: now + 1)
        for beats in beating:
            beats.value += 1
        parent.turn()


def test_a_worker_that_stands_still_is_killed(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    parent.serving()
    hung, other = parent.processes
    pass_seconds(parent, monkeypatch, 29, [parent.beats[1]])
    assert hung.signals == []
    pass_seconds(parent, monkeypatch, 3, [parent.beats[1]])
    assert (hung.signals, other.signals) == (["kill"], [])


def test_a_machine_that_stood_still_is_no_reason_to_kill(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    parent.serving()
    pass_seconds(parent, monkeypatch, 2, parent.beats)
    now = workers.time.monotonic()
    monkeypatch.setattr(workers.time, "monotonic", lambda: now + 3600)
    parent.turn()
    pass_seconds(parent, monkeypatch, 3, parent.beats)
    assert [process.signals for process in parent.processes] == [[], []]


def test_the_metrics_directory_is_new_named_for_the_workers_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METRICS_DIRECTORY, "before")
    with workers._metrics_directory() as directory:
        assert os.environ[METRICS_DIRECTORY] == directory
        assert os.listdir(directory) == []
    assert os.environ[METRICS_DIRECTORY] == "before"
    assert not Path(directory).exists()
