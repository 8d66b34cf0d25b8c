"""Traces of ``srgnn serve --workers 2``: each of the processes sends its own, the last ones when it is told to stop."""

from pathlib import Path

import pytest

from tests.collector import Collector
from tests.integration.test_workers import Service, connected, connections, serving, until

CLICK = (
    b"POST /sessions/s/click HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 19\r\n\r\n{"item_id": "100" }'
)
TOGETHER = 12


def clicked_at_both(service: Service) -> bool:
    """A click over each of several connections, if they are not all with one worker."""
    with connected(service, TOGETHER) as clients:
        until(lambda: sum(connections(service)) >= TOGETHER, service)
        if min(connections(service)) == 0:
            return False
        for client in clients:
            client.sendall(CLICK)
        return all(client.recv(65536).startswith(b"HTTP/1.1 200") for client in clients)


def test_every_worker_sends_its_spans_at_the_latest_when_it_ends(
    tiny_artifact: Path, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")  # ms: none is sent before the end
        with serving(tiny_artifact, tmp_path, redis_url) as service:
            until(lambda: clicked_at_both(service), service)
            workers = {worker.pid for worker in service.workers()}
            assert collector.requests == 0
    clicks = collector.named("POST /sessions/{session_id}/click")
    assert len(clicks) == TOGETHER
    assert {click.resource["process.pid"] for click in clicks} == workers
