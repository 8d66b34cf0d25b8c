"""The whole service over real HTTP: uvicorn, a real Redis, and ``srgnn serve`` as a process."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import load_settings
from srgnn.recommender import Recommender
from tests.redis_server import RedisServer, free_port

Running = Callable[[FastAPI], AbstractContextManager[str]]


def click(client: httpx.Client, session_id: str, item_id: str, **fields: object) -> dict[str, object]:
    response = client.post(f"/sessions/{session_id}/click", json={"item_id": item_id, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


def items_of(answer: dict[str, object]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]  # type: ignore[attr-defined]


@pytest.fixture
def client(running: Running, tiny_recommender: Recommender, redis_url: str) -> Iterator[httpx.Client]:
    # The tests click faster than a visitor.
    settings = load_settings(
        redis_url=redis_url, store_timeout_ms=2000, deadline_ms=20_000, clicks_per_second=0, max_under_way=256
    )
    with (
        running(create_app(settings, recommender=tiny_recommender)) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


def test_clicks_through_http_and_redis_answer_like_the_recommender(
    client: httpx.Client, tiny_recommender: Recommender
) -> None:
    history = ["100", "Müsli 🥣", "unknown", "a/b?c=d&e#f", "100", *(str(n) for n in range(101, 112))]
    for n, item in enumerate(history, start=1):
        [expected] = tiny_recommender.recommend([history[:n]], 20)
        answer = click(client, "s1", item)
        assert (items_of(answer), answer["source"], answer["clicks"]) == (expected.item_ids, "model", n)
    assert client.get("/sessions/s1").json() == {"session_id": "s1", "items": history, "clicks": len(history)}
    assert client.delete("/sessions/s1").status_code == 204
    assert client.get("/sessions/s1").json()["clicks"] == 0


def test_concurrent_mixed_requests_equal_single_ones(client: httpx.Client, tiny_recommender: Recommender) -> None:
    ids = tiny_recommender.vocabulary.ids

    async def ask(http: httpx.AsyncClient, n: int) -> dict[str, object]:
        body = {"item_id": ids[n % 40], "k": 1 + n % 20, "exclude": ids[: n % 5], "exclude_seen": n % 2 == 0}
        return (await http.post(f"/sessions/c{n}/click", json=body)).json()  # type: ignore[no-any-return]

    async def ask_all() -> list[dict[str, object]]:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=30) as http:
            return await asyncio.gather(*(ask(http, n) for n in range(200)))

    for n, answer in enumerate(asyncio.run(ask_all())):
        [expected] = tiny_recommender.recommend(
            [[ids[n % 40]]], 1 + n % 20, exclude=[ids[: n % 5]], exclude_seen=n % 2 == 0
        )
        assert (answer["session_id"], items_of(answer)) == (f"c{n}", expected.item_ids)


def test_forty_concurrent_clients_of_one_session_lose_no_click(client: httpx.Client) -> None:
    async def write(http: httpx.AsyncClient, writer: int) -> None:
        for n in range(2):
            response = await http.post("/sessions/busy/click", json={"item_id": f"{writer}:{n}", "k": 1})
            assert response.status_code == 200

    async def write_all() -> None:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=30) as http:
            await asyncio.gather(*(write(http, writer) for writer in range(40)))

    asyncio.run(write_all())
    kept = client.get("/sessions/busy").json()
    assert kept["clicks"] == 80
    assert sorted(kept["items"]) == sorted(f"{writer}:{n}" for writer in range(40) for n in range(2))


def click_head(length: int) -> bytes:
    lines = [
        "POST /sessions/s/click HTTP/1.1",
        "Host: x",
        "Connection: close",
        "Content-Type: application/json",
    ]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def raw(url: httpx.URL, request: bytes) -> bytes:
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def test_body_past_the_limit_is_refused_before_it_is_sent(client: httpx.Client) -> None:
    answer = raw(client.base_url, click_head(length=1_048_577))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer
    assert b"SRGNN_MAX_BODY_BYTES" in answer


@pytest.mark.parametrize(
    "path",
    ["/sessions/" + "x" * 10_000, "/sessions/a%20b", "/sessions/%00", "/sessions/a%2Fb", "/%ff", "//", "/*"],
)
def test_odd_paths_are_problems_and_never_failures(client: httpx.Client, path: str) -> None:
    answer = raw(client.base_url, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"404", b"422")
    assert b"application/problem+json" in answer


def test_every_bad_body_is_a_problem_and_the_service_goes_on(client: httpx.Client) -> None:
    bodies = [
        b"",
        b"nonsense",
        b"\xff",
        b"[]",
        b"{}",
        b'{"item_id": null}',
        b'{"item_id": "1", "x": 1}',
        b"[" * 50_000,
    ]
    for body in bodies:
        response = client.post("/sessions/s/click", content=body, headers={"Content-Type": "application/json"})
        assert 400 <= response.status_code < 500
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["x-request-id"]
    assert click(client, "s", "100")["clicks"] == 1


def test_redis_killed_in_the_middle_degrades_and_recovers(running: Running, tiny_recommender: Recommender) -> None:
    with RedisServer() as redis:
        settings = load_settings(redis_url=redis.url, store_timeout_ms=2000, deadline_ms=20_000)
        app = create_app(settings, recommender=tiny_recommender)
        with running(app) as url, httpx.Client(base_url=url, timeout=10) as client:
            assert click(client, "s", "100")["degraded"] is None
            redis.stop()
            degraded = click(client, "s", "117", k=5)
            assert (degraded["source"], degraded["degraded"]) == ("model", "store_unavailable")
            assert items_of(degraded) == tiny_recommender.recommend([["117"]], 5)[0].item_ids
            assert client.get("/sessions/s/recommendations").json()["degraded"] == "store_unavailable"
            assert "srgnn_store_silent 1.0" in client.get("/metrics").text
            told = click(client, "s", "117", k=5, history=["100", "103"])
            assert items_of(told) == tiny_recommender.recommend([["100", "103", "117"]], 5)[0].item_ids
            assert (told["degraded"], told["clicks"]) == ("store_unavailable", 3)
            assert client.post("/recommendations", json={"histories": [["100"]]}).status_code == 200
            for response in (client.get("/sessions/s"), client.delete("/sessions/s")):
                assert response.status_code == 503
                assert response.headers["content-type"] == "application/problem+json"
            assert client.get("/livez").status_code == 200
            assert client.get("/readyz").json() == {"status": "ready", "store": "unavailable"}
            redis.start()
            recovered(client)
            assert client.get("/readyz").json() == {"status": "ready", "store": "ok"}
            assert click(client, "s", "100")["degraded"] is None
            exposed = client.get("/metrics").text
            assert 'srgnn_store_failures_total{operation="append"}' in exposed
            assert "srgnn_store_silent 0.0" in exposed


def test_hung_redis_costs_a_click_little_more_than_its_timeout(running: Running, tiny_recommender: Recommender) -> None:
    with RedisServer() as redis:
        settings = load_settings(redis_url=redis.url, store_timeout_ms=50, deadline_ms=20_000)
        app = create_app(settings, recommender=tiny_recommender)
        with running(app) as url, httpx.Client(base_url=url, timeout=10) as client:
            click(client, "s", "100")
            redis.hang()
            started = time.monotonic()
            answers = [click(client, "s", "117") for _ in range(5)]
            assert (time.monotonic() - started) / 5 < 0.5
            assert {answer["degraded"] for answer in answers} == {"store_unavailable"}
            redis.resume()
            recovered(client)


def recovered(client: httpx.Client) -> None:
    """The store is asked again by itself."""
    deadline = time.monotonic() + 20
    while click(client, "other", "117")["degraded"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def serve(*arguments: str, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
    """``srgnn serve`` as a user starts it, ready to answer."""
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from srgnn.cli import main; main()",
            "serve",
            "--port",
            str(port),
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            wait_ready(process, client)
            yield process, client
    finally:
        process.kill()
        process.communicate()


def wait_ready(process: "subprocess.Popen[str]", client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)


def test_serve_stops_gracefully_and_says_what_it_did(tiny_artifact: Path, redis_url: str) -> None:
    arguments = ("--artifact", str(tiny_artifact), "--redis-url", redis_url)
    with serve(*arguments, SRGNN_STORE_TIMEOUT_MS="5000") as (process, client):
        for n in range(3):
            answer = click(client, "s", str(100 + n))
        assert answer["clicks"] == 3
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 0
    result = json.loads(stdout.splitlines()[-1])
    assert result["served"] >= 4
    assert result["seconds"] > 0
    for line in stderr.splitlines():
        json.loads(line)
    assert '"message":"serving"' in stderr


def test_request_under_way_is_answered_when_sigterm_comes(tiny_artifact: Path) -> None:
    """The body arrives only after the signal: the service waits for it."""
    with serve("--artifact", str(tiny_artifact)) as (process, client):
        body = b'{"item_id": "100"}'
        url = client.base_url
        with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
            connection.sendall(click_head(length=len(body)))
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            sender = threading.Timer(0.7, connection.sendall, [body])
            sender.start()
            answer = connection.recv(65536)
            sender.join()
        assert answer.startswith(b"HTTP/1.1 200")
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_ctrl_c_stops_it_as_well(tiny_artifact: Path) -> None:
    with serve("--artifact", str(tiny_artifact), SRGNN_LOG_LEVEL="error") as (process, _):
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 0
    assert json.loads(stdout.splitlines()[-1])["served"] >= 1
    assert stderr == ""
