"""``srgnn serve`` as an attacker, a careless client and an auditor meet it: real processes, a real Redis, real keys."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.keys import make, revoke
from service.sessions.redis import KEY_PREFIX
from srgnn.recommender import Recommender
from tests.corpora import random_corpus
from tests.redis_server import RedisServer, free_port

ROOT = Path(__file__).parents[2]
PATIENT = {"SRGNN_STORE_TIMEOUT_MS": "5000", "SRGNN_DEADLINE_MS": "20000", "OMP_NUM_THREADS": "1"}
SESSION, OTHER_SESSION = "Visitor-4711", "Visitor-4712"
EVENT, PASSWORD, WRONG_KEY = "Event-0815", "RedisPassword-2342", "WrongKey-1234567890"


@dataclass
class Service:
    process: "subprocess.Popen[str]"
    client: httpx.Client
    log: Path
    port: int

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(request)
            return connection.recv(65536)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def serve(artifact: Path, folder: Path, *options: str, **environment: str) -> Iterator[Service]:
    port, log = free_port(), folder / "service.log"
    command = [sys.executable, "-m", "srgnn", "serve", "--artifact", str(artifact), "--port", str(port), *options]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=os.environ | PATIENT | environment
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return client.get("/livez").status_code == 200
                except httpx.TransportError:
                    return False

            until(ready)
            yield Service(process, client, log, port)
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def open_service(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Without keys or Redis; for tests that leave it as it was but for sessions of their own."""
    with serve(tiny_artifact, tmp_path_factory.mktemp("open")) as service:
        yield service


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        server.command("CONFIG SET requirepass", PASSWORD)
        yield server


PATH, CLICK = f"/sessions/{SESSION}", {"item_id": "100", "event_id": EVENT}
JSON = {"Content-Type": "application/json"}


@dataclass
class Attempts:
    """Requests with one key or another, and the statuses that they came to."""

    service: Service
    file: Path
    good: str
    reader: str
    admin: str
    statuses: set[int] = field(default_factory=set)

    def ask(
        self, method: str, path: str, *, key: str | None = None, headers: Mapping[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        headers = {**bearer(key or self.good), **(headers or {})}
        response = self.service.client.request(method, path, headers=headers, **body)
        self.statuses.add(response.status_code)
        return response

    def click(self, **more: Any) -> httpx.Response:
        return self.ask("POST", f"{PATH}/click", **({"json": CLICK} | more))

    @property
    def secrets(self) -> list[str]:
        keys = [self.good, self.reader, self.admin, WRONG_KEY]
        return [SESSION, OTHER_SESSION, EVENT, PASSWORD, *keys, self.good.removeprefix("srgnn_")]


@pytest.fixture
def attempts(tiny_artifact: Path, tmp_path: Path, redis: RedisServer) -> Iterator[Attempts]:
    """On a service that logs all it can, with narrow bounds."""
    file = tmp_path / "keys"
    keys = make(file, "shop", ["click", "read"]), make(file, "reader", ["read"]), make(file, "operator", ["admin"])
    with serve(
        tiny_artifact,
        tmp_path,
        SRGNN_LOG_LEVEL="debug",
        SRGNN_KEYS_FILE=str(file),
        SRGNN_REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/0",
        SRGNN_MAX_BODY_BYTES="2000",
        SRGNN_TRANSFER_SECONDS="2",
        SRGNN_KEY_RATE="50",
    ) as service:
        yield Attempts(service, file, *keys)


def send_what_is_refused(attempts: Attempts) -> None:
    ask, click = attempts.ask, attempts.click
    ask("GET", PATH)
    ask("GET", f"{PATH}/recommendations")
    ask("GET", f"{PATH}/recommendations?k={SESSION}")
    ask("HEAD", PATH)
    ask("PUT", PATH)
    ask("GET", f"/x/{SESSION}")
    click(key=WRONG_KEY)
    ask("DELETE", PATH, key=attempts.reader)
    ask("PUT", PATH, key=attempts.admin)
    click(json={**CLICK, "k": 0, SESSION: EVENT})
    click(json={"item_id": EVENT * 300})
    click(json=None, content=EVENT)
    click(json=None, content=b"\xff", headers=JSON)
    click(json=None, content=f'{{"{EVENT}', headers=JSON)
    ask("POST", f"/sessions/.{SESSION}/click", json=CLICK)
    for _ in range(400):  # more than its rate
        ask("GET", PATH, key=attempts.reader)


def send_what_is_not_http(attempts: Attempts) -> None:
    """And what ends in the middle."""
    head = f"POST {PATH}/click HTTP/1.1\r\nAuthorization: Bearer {attempts.good}\r\nX-Secret: {SESSION}\r\n"
    unfinished = f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{EVENT}".encode()
    service = attempts.service
    service.raw(f"{head}Content-Length: -{EVENT}\r\n\r\n".encode())
    service.raw(f"{head}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode())
    service.raw(f"{head}X-Long: {'x' * 40_000}\r\n\r\n".encode())
    service.raw(unfinished)  # too slow
    with socket.create_connection(("127.0.0.1", service.port)) as gone:
        gone.sendall(unfinished)


def break_the_store(attempts: Attempts, redis: RedisServer) -> None:
    """First what it holds, then our password, then all of it."""
    redis.command(f"AUTH {PASSWORD}\r\nSET {KEY_PREFIX}{{{OTHER_SESSION}}} text")
    assert attempts.ask("GET", f"/sessions/{OTHER_SESSION}").status_code == 503
    redis.command(f"AUTH {PASSWORD}\r\nCONFIG SET requirepass other\r\nCLIENT KILL TYPE normal")
    until(lambda: attempts.click().json().get("degraded") == "store_unavailable")
    redis.stop()
    assert attempts.click().json()["degraded"] == "store_unavailable"
    assert attempts.ask("GET", PATH).status_code == 503
    assert attempts.ask("DELETE", PATH).status_code == 503


def break_the_keys(attempts: Attempts) -> None:
    revoke(attempts.file, "reader")
    until(lambda: attempts.ask("GET", "/model", key=attempts.reader).status_code == 401)
    attempts.file.write_text(f"{attempts.good} is no line\n")
    until(lambda: "keys stay as they were" in attempts.service.log.read_text())


def stop(service: Service) -> str:
    """What it says at the end on stdout."""
    service.process.send_signal(signal.SIGTERM)
    return service.process.communicate(timeout=60)[0]


def test_nothing_secret_is_logged_counted_or_told_to_others(attempts: Attempts, redis: RedisServer) -> None:
    """Every refusal and every failure there is, at the most talkative log level."""
    assert attempts.click().json()["clicks"] == 1
    send_what_is_refused(attempts)
    send_what_is_not_http(attempts)
    break_the_store(attempts, redis)
    break_the_keys(attempts)
    assert attempts.statuses == {200, 400, 401, 403, 404, 405, 413, 415, 422, 429, 503}

    told = "".join(attempts.ask("GET", path).text for path in ("/metrics", "/openapi.json", "/model"))
    stdout, log = stop(attempts.service), attempts.service.log.read_text()
    assert '"message":"request"' in log
    assert "session store unavailable" in log
    for line in log.splitlines():
        json.loads(line)
    for secret in attempts.secrets:
        assert secret not in log
        assert secret not in told
        assert secret not in stdout


def test_no_endpoint_lists_sessions(open_service: Service) -> None:
    """Only who knows a session's id reads it: whatever else is asked for tells of none."""
    http = open_service.client
    assert http.post(f"/sessions/{SESSION}/click", json={"item_id": "100"}).status_code == 200
    paths = http.get("/openapi.json").json()["paths"]
    asked = {path.replace("{session_id}", OTHER_SESSION) for path in paths}
    for path in sorted(asked | {"/sessions", "/sessions/", "/sessions/*", "/admin/sessions", "/docs", "/"}):
        assert SESSION not in http.get(path).text, path


def everything(redis: RedisServer) -> str:
    """All that Redis holds: every key of every type, with its content."""
    from redis import Redis

    with Redis(port=redis.port) as connection:
        return repr(sorted((key, connection.dump(key)) for key in connection.scan_iter("*")))


def test_a_click_without_consent_leaves_no_trace_in_redis(tiny_artifact: Path, tmp_path: Path, redis_url: str) -> None:
    redis = RedisServer.__new__(RedisServer)
    redis.port = int(redis_url.rpartition(":")[2].partition("/")[0])
    with serve(tiny_artifact, tmp_path, "--redis-url", redis_url) as service:
        http = service.client
        assert http.post(f"/sessions/{OTHER_SESSION}/click", json={"item_id": "101"}).status_code == 200
        until(lambda: "srgnn:answer" in everything(redis))  # posted a moment after the click was answered
        before = everything(redis)
        assert OTHER_SESSION in before
        for n in range(3):
            body = {"item_id": "100", "event_id": f"{EVENT}-{n}", "consent": False, "explain": n == 1}
            for session in (SESSION, OTHER_SESSION):
                response = http.post(f"/sessions/{session}/click", json=body)
                assert (response.status_code, response.json()["clicks"]) == (200, 1)
        assert everything(redis) == before
        assert SESSION not in service.log.read_text()


def test_every_worker_takes_a_key_away_without_a_restart(tiny_artifact: Path, tmp_path: Path, redis_url: str) -> None:
    keys = tmp_path / "keys"
    first, second = make(keys, "first", ["read"]), make(keys, "second", ["read"])
    options = ("--redis-url", redis_url, "--workers", "2")
    with serve(tiny_artifact, tmp_path, *options, SRGNN_KEYS_FILE=str(keys)) as service:

        def answers(key: str) -> set[int]:
            """Of many connections, so of both workers."""
            url = f"http://127.0.0.1:{service.port}/model"
            return {httpx.get(url, headers=bearer(key), timeout=30).status_code for _ in range(20)}

        assert answers(first) == answers(second) == {200}
        revoke(keys, "first")
        until(lambda: answers(first) == {401})
        assert answers(second) == {200}
        third = make(keys, "third", ["read"])
        until(lambda: answers(third) == {200})


def test_a_damaged_file_of_keys_stops_a_start_and_not_a_service(tiny_artifact: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("nonsense\n")
    command = [sys.executable, "-m", "srgnn", "serve", "--artifact", str(tiny_artifact), "--port", "0"]
    environment = os.environ | {"SRGNN_KEYS_FILE": str(keys)}
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert found.returncode == 2
    assert f"{keys}, line 1: 1 words instead of 3" in found.stderr


def test_every_client_of_ours_brings_a_key(tiny_artifact: Path, tiny_recommender: Recommender, tmp_path: Path) -> None:
    corpus = random_corpus(tmp_path / "corpus", tiny_recommender.vocabulary)
    keys, key, items = tmp_path / "keys", tmp_path / "key", tmp_path / "items"
    key.write_text(make(keys, "us", ["click", "read"]) + "\n")
    items.write_text("\n".join(tiny_recommender.vocabulary.ids[:20]) + "\n")
    load = [sys.executable, "deploy/load.py", "--items", str(items), "--rate", "20", "--seconds", "1"]
    replay = [sys.executable, "-m", "srgnn", "replay", "--corpus", str(corpus.path), "--limit", "3"]
    bench = [sys.executable, "-m", "benchmarks.load", "--corpus", str(corpus.path), "--rate", "20", "--seconds", "0.5"]
    with serve(tiny_artifact, tmp_path, SRGNN_KEYS_FILE=str(keys)) as service:
        for command in (load, replay, [*bench, "--warmup-seconds", "0"]):
            arguments = [*command, "--url", f"http://127.0.0.1:{service.port}", "--key-file", str(key)]
            found = subprocess.run(arguments, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
            assert found.returncode == 0, found.stderr
            summary = json.loads(found.stdout.splitlines()[-1])
            assert not any(row["errors"] for row in summary.get("results", [{"errors": summary.get("errors")}]))
        metrics = service.client.get("/metrics", headers=bearer(key.read_text().strip())).text
    assert re.search(r'route="/sessions/{session_id}/click",status="200"} [1-9]', metrics)
    assert 'status="401"' not in metrics


NASTY = [
    b'{"item_id": "100", "k": 1e400}',
    b'{"item_id": "100", "k": -1e400}',
    b'{"item_id": "100", "k": ' + b"9" * 5_000 + b"}",
    b'{"item_id": "100", "k": 1' + b"0" * 5_000 + b".5e-4990}",
    b'{"item_id": "100", "k": NaN}',
    b'{"item_id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"item_id": "100", "exclude": [' + b",".join([b'"x"'] * 100_000) + b"]}",
    b'{"item_id": "' + b"x" * 900_000 + b'"}',
    b'{"item_id": "100", "event_id": "' + b"e" * 129 + b'"}',
    b"{" + b",".join(b'"f%d": 1' % n for n in range(60_000)) + b"}",
    b'{"item_id": "\\ud800"}',
    b'{"item_id": "\\u0000"}',
]


def test_bodies_made_to_hurt_are_refused(open_service: Service) -> None:
    http = open_service.client
    for content_type in ("application/json", "application/json; charset=utf-8"):  # the short way and FastAPI's
        for body in NASTY:
            response = http.post("/sessions/hurt/click", content=body, headers={"Content-Type": content_type})
            assert response.status_code in (400, 422), (body[:60], response.text[:200])
            assert len(response.content) < 10_000
    assert '"level":"error"' not in open_service.log.read_text()
    assert http.get("/sessions/hurt").json()["clicks"] == 0
