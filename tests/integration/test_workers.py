"""``srgnn serve --workers 2`` as a user starts it: real processes, a real Redis, one of them killed now and then."""

import json
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.processes import Service, serving, start, until
from tests.redis_server import RedisServer


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


def test_an_event_repeated_at_any_worker_changes_nothing_and_is_answered_the_same(
    service: Service, redis_url: str
) -> None:
    events = [{"item_id": str(100 + n), "event_id": f"e{n}"} for n in range(5)]
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=service.url, timeout=30)) for _ in range(12)]
        first = [clients[0].post("/sessions/repeated/click", json=event).json() for event in events]
        for client in clients:  # six by each worker
            again = [client.post("/sessions/repeated/click", json=event).json() for event in events]
            assert again == first
        assert clients[0].get("/sessions/repeated").json()["clicks"] == 5


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


def test_connections_are_shared_out(service: Service, redis_url: str) -> None:
    """As few as a balancer or a batch client opens."""
    shared = 0
    for _ in range(20):
        with connected(service, 4):
            until(lambda: sum(connections(service)) == 4)
            shared += connections(service) == [2, 2]
        until(lambda: sum(connections(service)) == 0)
    assert shared >= 15, "one worker may be held up now and then"


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


def test_a_worker_that_hangs_is_killed_and_replaced(tiny_artifact: Path, tmp_path: Path, redis_url: str) -> None:
    with serving(tiny_artifact, tmp_path, redis_url, hang_seconds="5") as service:
        hung, other = service.workers()
        hung.suspend()
        until(lambda: len(service.lines("a worker died and is replaced")) > 0, service)
        [line] = service.lines("a worker hangs and is killed")
        assert line["worker"] == hung.pid
        until(lambda: len(service.workers()) == 2 and service.click("s", "100").status_code == 200, service)
        assert gone([hung])
        assert other.pid in {worker.pid for worker in service.workers()}


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
        until(lambda: gone(family))


def test_ctrl_c_drains_and_a_second_one_ends_it(tiny_artifact: Path, tmp_path: Path, redis_url: str) -> None:
    """A terminal sends it to every process."""

    def ctrl_c() -> None:
        for process in (psutil.Process(service.process.pid), *service.workers()):
            process.send_signal(signal.SIGINT)

    with serving(tiny_artifact, tmp_path, redis_url, drain_seconds="3600") as service:
        family = psutil.Process(service.process.pid).children(recursive=True)
        ctrl_c()
        until(lambda: len(service.lines("draining")) == 2, service)
        for _ in range(6):  # by either worker
            ready, click = service.get("/readyz"), service.click("s", "100")
            assert (ready.status_code, click.status_code) == (503, 200)
            assert ready.headers["connection"] == click.headers["connection"] == "close"
        ctrl_c()
        assert service.end()[0] == 0
        until(lambda: gone(family))


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
