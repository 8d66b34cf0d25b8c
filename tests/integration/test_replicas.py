"""Two replicas on one Redis, behind a balancer like Kubernetes': one restarted after the other under steady load."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.integration.processes import Service, start, until
from tests.redis_server import free_port

POLL_SECONDS = 0.2
DRAIN_SECONDS = 3


@dataclass
class Balancer:
    """Knows of each replica whether it was ready when last asked, and keeps connections to each."""

    ports: list[int]
    ready: dict[int, bool] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.stop.is_set():
            for port in self.ports:
                try:
                    self.ready[port] = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=30).status_code == 200
                except httpx.TransportError:
                    self.ready[port] = False
            time.sleep(POLL_SECONDS)

    def send(self, number: int) -> None:
        """Clicks of one session, to a ready replica each, none of them twice."""
        with ExitStack() as stack:
            clients = {
                port: stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
                for port in self.ports
            }
            clicks = 0
            while not self.stop.is_set():
                ready = [port for port in self.ports if self.ready.get(port)]
                port = ready[clicks % len(ready)]
                clicks += 1
                try:
                    response = clients[port].post(f"/sessions/b{number}/click", json={"item_id": "100"})
                    if response.status_code != 200 or response.json()["clicks"] != clicks:
                        self.failures.append(response.text)
                except httpx.TransportError as error:
                    self.failures.append(f"{port}: {error!r}")
                self.sent[port] = self.sent.get(port, 0) + 1
                time.sleep(0.02)


@pytest.fixture
def replica(tiny_artifact: Path, tmp_path: Path, redis_url: str) -> Iterator[Callable[[int], Service]]:
    """Starts one on a port; all of them are ended after the test."""
    with ExitStack() as stack:

        def start_one(port: int) -> Service:
            service = start(tiny_artifact, tmp_path, redis_url, workers=1, port=port, drain_seconds=str(DRAIN_SECONDS))
            stack.callback(service.end)
            stack.callback(service.process.kill)
            return service

        yield start_one


def test_both_replicas_restarted_in_turn_fail_no_request(
    replica: Callable[[int], Service],
) -> None:
    replicas = {port: replica(port) for port in (free_port(), free_port())}
    balancer = Balancer(list(replicas))
    watcher = threading.Thread(target=balancer.watch)
    senders = [threading.Thread(target=balancer.send, args=(number,)) for number in range(3)]
    watcher.start()
    try:
        until(lambda: all(balancer.ready.get(port) for port in replicas))
        for sender in senders:
            sender.start()
        for port, old in replicas.items():
            time.sleep(1)
            old.process.send_signal(signal.SIGTERM)
            code, stdout = old.end()
            assert (code, '"served"' in stdout) == (0, True)
            assert old.lines("draining")
            assert not balancer.ready[port]
            before = balancer.sent[port]
            replica(port)
            until(lambda port=port, before=before: balancer.ready[port] and balancer.sent[port] > before + 10)
    finally:
        balancer.stop.set()
        for thread in (watcher, *senders):
            if thread.ident:
                thread.join()
    assert balancer.failures == []
    assert sum(balancer.sent.values()) > 100
