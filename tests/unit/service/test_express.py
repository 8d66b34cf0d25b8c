"""The short way must not be another way: every request is answered as FastAPI answers it, only sooner."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from service.app import create_app
from service.express import Express
from service.settings import load_settings
from srgnn.recommender import Recommender
from tests.conftest import ClientOf

SHORT = {"content-type": "application/json"}
LONG = {"content-type": "application/json; charset=utf-8"}  # for FastAPI the same


@pytest.fixture
async def client(tiny_recommender: Recommender, client_of: ClientOf) -> AsyncIterator[httpx.AsyncClient]:
    settings = load_settings(max_histories=4, max_history_length=5, max_exclude=3, max_k=30, deadline_ms=30_000)
    async with client_of(create_app(settings, recommender=tiny_recommender)) as client:
        yield client


@pytest.fixture
def fastapi_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the requests that Express passed on."""
    passed: list[str] = []
    before = Express.__init__

    def recording(self: Express, app: FastAPI) -> None:
        async def passing(scope: Scope, receive: Receive, send: Send) -> None:
            passed.append(scope["path"])
            await app(scope, receive, send)

        before(self, passing)

    monkeypatch.setattr(Express, "__init__", recording)
    return passed


GOOD = {
    "/sessions/s/click": [
        {"item_id": "100"},
        {"item_id": "unheard of", "k": 5, "exclude": ["101"], "exclude_seen": True, "consent": False},
        {"item_id": "日本語", "consent": False, "explain": True, "event_id": "e"},
        {"item_id": "100", "k": None, "event_id": None, "consent": False},
    ],
    "/recommendations": [
        {"histories": [["100", "101"], [], ["unheard of"]]},
        {"histories": [["100"]], "k": 30, "exclude": ["103"], "exclude_seen": True},
    ],
}
REFUSED = {
    "/sessions/s/click": [
        {},
        [],
        "100",
        None,
        {"item_id": 100},
        {"item_id": ""},
        {"item_id": "a\nb"},
        {"item_id": "\ud800"},
        {"item_id": "x" * 300},
        {"item_id": "100", "k": 0},
        {"item_id": "100", "k": 31},
        {"item_id": "100", "k": True},
        {"item_id": "100", "k": 5.5},
        {"item_id": "100", "k": 10**30},
        {"item_id": "100", "exclude": ["1", "2", "3", "4"]},
        {"item_id": "100", "exclude": "101"},
        {"item_id": "100", "event_id": "with space"},
        {"item_id": "100", "consent": 0},
        {"item_id": "100", "itemid": "101"},
    ],
    "/recommendations": [
        {},
        {"histories": []},
        {"histories": [["1"]] * 5},
        {"histories": [["1"] * 6]},
        {"histories": [["1"], "2"]},
        {"histories": [["1", ""]]},
        {"histories": [["100"]], "k": 41},
    ],
    "/sessions/.hidden/click": [{"item_id": "100"}],
    "/sessions/s/clicks": [{"item_id": "100"}],
    "/model": [{"item_id": "100"}],
}


def requests(bodies: dict[str, list[object]]) -> list[tuple[str, bytes]]:
    return [(path, json.dumps(body).encode()) for path, several in bodies.items() for body in several]


@pytest.mark.parametrize(("path", "body"), requests(GOOD))
async def test_a_good_request_is_answered_alike_and_without_fastapi(
    fastapi_calls: list[str], client: httpx.AsyncClient, path: str, body: bytes
) -> None:
    short = await client.post(path, content=body, headers=SHORT)
    assert fastapi_calls == []
    await client.delete("/sessions/s")
    long = await client.post(path, content=body, headers=LONG)
    assert fastapi_calls == ["/sessions/s", path]
    assert short.status_code == long.status_code == 200
    assert short.content == long.content
    assert short.headers["content-type"] == long.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *requests(REFUSED),
        ("/sessions/s/click", b""),
        ("/sessions/s/click", b"{"),
        ("/sessions/s/click", b'{"item_id": "100"} x'),
        ("/sessions/s/click", b'{"item_id": "100", "k": NaN}'),
        ("/sessions/s/click", b'\xff{"item_id": "100"}'),
        ("/sessions/s/click", b'{"item_id": "a\x00"}'),
    ],
)
async def test_a_refusal_is_fastapis_own(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    short = await client.post(path, content=body, headers=SHORT)
    long = await client.post(path, content=body, headers=LONG)
    assert short.status_code >= 400
    assert short.status_code == long.status_code
    assert short.content == long.content
    assert (await client.get("/sessions/s")).json()["clicks"] == 0, "a refused click is not stored"


async def test_a_body_in_utf_16_is_read_as_before(client: httpx.AsyncClient) -> None:
    body = json.dumps({"item_id": "100"}).encode("utf-16")
    assert (await client.post("/sessions/s/click", content=body, headers=SHORT)).json()["clicks"] == 1


async def test_a_body_in_parts_without_a_length_takes_the_long_way(
    fastapi_calls: list[str], client: httpx.AsyncClient
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"item_'
        yield b'id": "100"}'

    answer = await client.post("/sessions/s/click", content=parts(), headers=SHORT)
    assert answer.json()["clicks"] == 1
    assert fastapi_calls == ["/sessions/s/click"]


async def test_a_body_that_comes_in_parts_is_read_whole_and_can_be_read_again() -> None:
    """Parts arrive so over a network; the in-process client above always sends one."""
    seen: list[bytes] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            seen.append(message["body"])
            more = message["more_body"]
        seen.append((await receive())["type"].encode())

    arriving: list[Message] = [
        {"type": "http.request", "body": b'{"item_', "more_body": True},
        {"type": "http.request", "body": b'id": 7}', "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return arriving.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/sessions/s/click",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"15")],
        "state": {"service": None},
    }
    await Express(inner)(scope, receive, send)
    assert seen == [b'{"item_', b'id": 7}', b"http.disconnect"]


async def test_a_click_counts_under_its_routes_label(client: httpx.AsyncClient) -> None:
    await client.post("/sessions/s/click", json={"item_id": "100"})
    await client.post("/recommendations", json={"histories": [["100"]]})
    shown = (await client.get("/metrics")).text
    assert 'srgnn_requests_total{method="POST",route="/sessions/{session_id}/click",status="200"} 1.0' in shown
    assert 'srgnn_requests_total{method="POST",route="/recommendations",status="200"} 1.0' in shown


async def test_too_many_clicks_of_one_session_are_told_when_to_come_back(
    tiny_recommender: Recommender, client_of: ClientOf
) -> None:
    app = create_app(load_settings(clicks_per_second=2), recommender=tiny_recommender)
    async with client_of(app) as client:
        for way in ("application/json", "application/json; charset=utf-8"):  # the short way and FastAPI's
            headers = {"content-type": way}
            clicks = [
                await client.post(f"/sessions/{len(way)}/click", content=b'{"item_id": "100"}', headers=headers)
                for _ in range(3)
            ]
            assert [response.status_code for response in clicks] == [200, 200, 429]
            assert clicks[2].headers["retry-after"] == "1"
            assert "SRGNN_CLICKS_PER_SECOND" in clicks[2].json()["detail"]
            assert (await client.get(f"/sessions/{len(way)}")).json()["clicks"] == 2
