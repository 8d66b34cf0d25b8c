"""What a signal does; tests/integration/test_replicas.py stops real processes under load."""

import signal

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from service.drain import CloseConnections, Drain, DrainingServer


@pytest.fixture
def drain() -> Drain:
    return Drain()


def server(drain: Drain, seconds: int) -> DrainingServer:
    return DrainingServer(uvicorn.Config(FastAPI(), log_config=None), drain, seconds)


async def test_each_answer_closes_its_connection_once_draining(drain: Drain) -> None:
    app = FastAPI()
    app.add_middleware(CloseConnections, drain=drain)

    @app.get("/begins")
    async def begins() -> str:
        drain.begun = True  # while this request is under way
        return ""

    @app.get("/")
    async def root() -> str:
        return ""

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        assert "connection" not in (await client.get("/")).headers
        for path in ("/begins", "/", "/nothing"):
            assert (await client.get(path)).headers["connection"] == "close"


async def test_other_scopes_pass_through(drain: Drain) -> None:
    seen = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        seen.append(scope["type"])

    await CloseConnections(app, drain)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


async def test_the_first_signal_begins_draining_and_its_end_stops(
    drain: Drain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draining = server(drain, seconds=3)
    now = 100.0
    monkeypatch.setattr("service.drain.time.monotonic", lambda: now)
    assert not await draining.on_tick(1)
    assert not drain.begun
    draining.handle_exit(signal.SIGTERM, None)
    assert drain.begun
    with caplog.at_level("INFO"):
        assert not await draining.on_tick(2)
        now += 2.9
        assert not await draining.on_tick(3)
    assert caplog.text.count("draining") == 1
    now += 0.2
    assert await draining.on_tick(4)


async def test_a_second_signal_ends_draining(drain: Drain) -> None:
    draining = server(drain, seconds=3600)
    draining.handle_exit(signal.SIGTERM, None)
    assert not await draining.on_tick(1)
    draining.handle_exit(signal.SIGINT, None)
    assert await draining.on_tick(2)
    assert not draining.force_exit, "requests under way are finished"


async def test_without_time_to_drain_the_first_signal_stops(drain: Drain) -> None:
    at_once = server(drain, seconds=0)
    at_once.handle_exit(signal.SIGTERM, None)
    assert drain.begun
    assert await at_once.on_tick(1)
