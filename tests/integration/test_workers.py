"""``srgnn serve --workers 2`` as a user starts it: real processes, a real Redis, one of them killed now and then."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.redis_server import RedisServer, free_port

SLOW_MACHINE = {
    "SRGNN_STORE_TIMEOUT_MS": "5000",
    "SRGNN_DEADLINE_MS": "20000",
    "SRGNN_SHUTDOWN_SECONDS": "30",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Service:
    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[psutil.Process]:
        """Children beside the tracker that Python keeps for whoever spawns."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def get(self, path: str) -> httpx.Response:
        """Over a connection of its own."""
        return httpx.get(f"{self.url}{path}", timeout=30)

    def click(self, session_id: str, item_id: str) -> httpx.Response:
        return httpx.post(f"{self.url}/sessions/{session_id}/click", json={"item_id": item_id}, timeout=30)

    def metric(self, name: str) -> float:
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.get("/metrics").text, re.MULTILINE)
        return sum(map(float, values))

    def lines(self, message: str) -> list[dict[str, object]]:
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if line["message"] == message]

    def end(self) -> tuple[int, str]:
        """Exit code and stdout."""
        stdout, _ = self.process.communicate(timeout=60)
        return self.process.returncode, stdout.decode()


def start(artifact: Path, folder: Path, redis_url: str) -> Service:
    port, log = free_port(), folder / "service.log"
    command = [sys.executable, "-c", "from srgnn.cli import main; main()", "serve", "--workers", "2"]
    options = ["--artifact", str(artifact), "--redis-url", redis_url, "--port", str(port)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=stderr, env=os.environ | SLOW_MACHINE
        )
    return Service(process, port, log)


@contextmanager
def serving(artifact: Path, folder: Path, redis_url: str) -> Iterator[Service]:
    """Ready to answer; nothing of it is left afterwards."""
    service = start(artifact, folder, redis_url)
    try:
        until(lambda: answers(service), service)
        yield service
    finally:
        service.process.terminate()
        service.end()


def answers(service: Service) -> bool:
    try:
        return service.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def until(condition: Callable[[], bool], service: Service | None = None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert service is None or service.process.poll() is None, service.log.read_text()
        assert time.monotonic() < deadline, service and service.log.read_text()
        time.sleep(0.05)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def connections(service: Service) -> list[int]:
    """Open connections of each worker."""
    found = [worker.net_connections("tcp") for worker in service.workers()]
    established = psutil.CONN_ESTABLISHED
    return [sum(one.status == established and one.laddr.port == service.port for one in each) for each in found]


@contextmanager
def connected(service: Service, number: int) -> Iterator[list[socket.socket]]:
    """Connections that a worker has accepted."""
    with ExitStack() as stack:
        address = ("127.0.0.1", service.port)
        yield [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(number)]


def both_accept(service: Service) -> bool:
    with connected(service, 12):
        until(lambda: sum(connections(service)) >= 12)
        return len(service.workers()) == 2 and min(connections(service)) > 0


@pytest.fixture(scope="module")
def service(
    tiny_artifact: Path, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """One for all tests that leave two workers behind."""
    with serving(tiny_artifact, tmp_path_factory.mktemp("service"), redis_server.url) as service:
        yield service


def test_a_session_is_one_whichever_worker_answers(service: Service, redis_url: str) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=service.url, timeout=30)) for _ in range(12)]
        for n in range(36):
            response = clients[n % 12].post("/sessions/shared/click", json={"item_id": str(100 + n % 30)})
            assert (response.status_code, response.json()["clicks"]) == (200, n + 1)
        assert len(connections(service)) == 2
        assert min(connections(service)) > 0, "one worker answered nothing"
    stored = service.get("/sessions/shared").json()
    assert stored["items"] == [str(100 + n % 30) for n in range(36)]


def test_metrics_of_any_worker_are_those_of_all(service: Service, redis_url: str) -> None:
    answered, histories = service.metric("srgnn_answers_total"), service.metric("srgnn_batch_size_sum")
    for n in range(20):
        assert service.click(f"m{n}", "100").status_code == 200
    for _ in range(8):  # by either worker
        assert service.metric("srgnn_answers_total") == answered + 20
        assert service.metric("srgnn_batch_size_sum") == histories + 20
    assert service.metric("srgnn_workers") == 2
    assert service.metric("srgnn_queue_length") == 0
    assert re.search(r'^srgnn_model_info\{name="tiny-\d+-\w+"\} 1.0$', service.get("/metrics").text, re.MULTILINE)


def test_a_killed_worker_is_replaced_and_only_what_it_had_accepted_fails(service: Service, redis_url: str) -> None:
    """One click at a time over a connection of its own, before, during and after."""
    first, second = service.workers()
    replaced = service.metric("srgnn_worker_replacements_total")
    failures = []
    stop = threading.Event()

    def click() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            try:
                assert service.click(f"k{n}", "100").json()["degraded"] is None
            except httpx.TransportError as error:
                failures.append(error)

    load = threading.Thread(target=click)
    load.start()
    try:
        time.sleep(0.3)
        first.kill()
        until(lambda: service.metric("srgnn_worker_replacements_total") == replaced + 1, service)
        until(lambda: both_accept(service), service)
    finally:
        stop.set()
        load.join()
    assert len(failures) <= 1
    assert service.metric("srgnn_workers") == 2
    assert second.pid in {worker.pid for worker in service.workers()}
    [line] = service.lines("a worker died and is replaced")
    assert (line["worker"], line["exit_code"]) == (first.pid, -signal.SIGKILL)


def test_sigterm_ends_all_after_what_is_under_way(tiny_artifact: Path, tmp_path: Path, redis_url: str) -> None:
    body = b'{"item_id": "100"}'
    head = "POST /sessions/s/click HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with serving(tiny_artifact, tmp_path, redis_url) as service:
        for n in range(10):
            assert service.click("s", str(100 + n)).status_code == 200
        family = psutil.Process(service.process.pid).children(recursive=True)
        with connected(service, 8) as under_way:
            for connection in under_way:
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
            until(lambda: sum(connections(service)) == 8)
            time.sleep(0.3)
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            for connection in under_way:
                connection.sendall(body)
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        code, stdout = service.end()
        assert code == 0
        [line] = stdout.splitlines()
        assert json.loads(line)["served"] >= 10 + 8 + 1
        until(lambda: gone(family))  # the tracker ends when it sees that its parent is gone


def test_workers_end_when_their_parent_is_killed(tiny_artifact: Path, tmp_path: Path, redis_url: str) -> None:
    with serving(tiny_artifact, tmp_path, redis_url) as service:
        workers = service.workers()
        [metrics] = {worker.environ()["PROMETHEUS_MULTIPROC_DIR"] for worker in workers}
        assert Path(metrics).is_dir()
        service.process.kill()
        until(lambda: gone(workers))
    assert not Path(metrics).exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port))


def test_a_damaged_artifact_is_told_once(tiny_artifact: Path, tmp_path: Path, redis_url: str) -> None:
    damaged = shutil.copytree(tiny_artifact, tmp_path / "damaged")
    with next(damaged.glob("*/model.safetensors")).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    service = start(damaged, tmp_path, redis_url)
    assert service.end() == (2, "")
    [line] = service.log.read_text().splitlines()
    assert line.startswith("error: ")
    assert "model.safetensors is damaged" in line
