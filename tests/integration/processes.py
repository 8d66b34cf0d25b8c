"""``srgnn serve`` as a user starts it: real processes."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.redis_server import free_port

SLOW_MACHINE = {
    "SRGNN_CLICKS_PER_SECOND": "0",  # some tests click faster than a visitor
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


def start(
    artifact: Path, folder: Path, redis_url: str, *, workers: int = 2, port: int | None = None, **environment: str
) -> Service:
    """As a user does; ``environment`` holds settings, without their prefix."""
    port, log = port or free_port(), folder / f"service-{time.monotonic_ns()}.log"
    command = [sys.executable, "-c", "from srgnn.cli import main; main()", "serve", "--workers", str(workers)]
    options = ["--artifact", str(artifact), "--redis-url", redis_url, "--port", str(port)]
    settings = SLOW_MACHINE | {f"SRGNN_{name.upper()}": value for name, value in environment.items()}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=stderr, env=os.environ | settings
        )
    return Service(process, port, log)


@contextmanager
def serving(
    artifact: Path, folder: Path, redis_url: str, *, workers: int = 2, port: int | None = None, **environment: str
) -> Iterator[Service]:
    """Ready to answer; nothing of it is left afterwards."""
    service = start(artifact, folder, redis_url, workers=workers, port=port, **environment)
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
