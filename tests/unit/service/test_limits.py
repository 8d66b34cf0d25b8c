import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request

from service.app import create_app
from service.errors import RequestRefused, add_error_handlers
from service.limits import BodyLimit, check_size, resolve_k
from service.settings import load_settings
from srgnn.recommender import Recommender


def k_of(k: int | None, catalogue: int = 1000) -> int:
    return resolve_k(k, default=20, max_k=100, catalogue=catalogue, place="body.k")


def test_k_defaults_to_the_setting_but_never_past_the_catalogue() -> None:
    assert k_of(None) == 20
    assert k_of(None, catalogue=7) == 7


def test_k_may_be_anything_up_to_its_limits() -> None:
    assert [k_of(1), k_of(100), k_of(7, catalogue=7)] == [1, 100, 7]


def test_k_past_the_limit_names_value_limit_and_setting() -> None:
    with pytest.raises(RequestRefused, match=r"body\.k is 101: the limit is 100 \(SRGNN_MAX_K\).*from 1 to 100"):
        k_of(101)


def test_k_past_the_catalogue_names_its_size() -> None:
    with pytest.raises(RequestRefused, match=r"body\.k is 8: the catalogue has 7 items.*from 1 to 7"):
        k_of(8, catalogue=7)


def test_the_openapi_document_tells_the_limits(tiny_recommender: Recommender) -> None:
    options = {"max_k": 30, "max_histories": 31, "max_history_length": 32, "max_exclude": 33}
    document = create_app(load_settings(**options), recommender=tiny_recommender).openapi()
    schemas = document["components"]["schemas"]
    click, bulk = (schemas[name]["properties"] for name in ("ClickRequest", "RecommendationsRequest"))
    [k] = [
        parameter["schema"]
        for parameter in document["paths"]["/sessions/{session_id}/recommendations"]["get"]["parameters"]
        if parameter["name"] == "k"
    ]
    assert {click["k"]["anyOf"][0]["maximum"], bulk["k"]["anyOf"][0]["maximum"], k["anyOf"][0]["maximum"]} == {30}
    assert (bulk["histories"]["maxItems"], bulk["histories"]["items"]["maxItems"]) == (31, 32)
    assert {click["exclude"]["maxItems"], bulk["exclude"]["maxItems"]} == {33}


def test_list_may_be_as_long_as_its_limit_and_no_longer() -> None:
    check_size(["a"] * 3, 3, place="body.exclude", setting="max_exclude")
    with pytest.raises(RequestRefused, match=r"body\.exclude is a list of 4.*SRGNN_MAX_EXCLUDE.*at most 3"):
        check_size(["a"] * 4, 3, place="body.exclude", setting="max_exclude")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    add_error_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=100)

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @app.post("/parsed")
    async def parsed(values: list[str]) -> int:
        return len(values)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        yield client


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 50


async def test_body_up_to_the_limit_passes(client: httpx.AsyncClient) -> None:
    assert (await client.post("/length", content=b"x" * 100)).json() == 100
    assert (await client.post("/length", content=chunks(2))).json() == 100


async def test_larger_body_is_413_whether_its_length_is_declared_or_not(client: httpx.AsyncClient) -> None:
    for content in (b"x" * 101, chunks(3)):
        response = await client.post("/length", content=content)
        assert response.status_code == 413
        assert response.headers["content-type"] == "application/problem+json"
        assert "the limit is 100 (SRGNN_MAX_BODY_BYTES)" in response.json()["detail"]


async def test_larger_body_is_413_where_a_body_is_parsed(client: httpx.AsyncClient) -> None:
    for content in (json.dumps(["x"] * 50).encode(), chunks(3)):
        response = await client.post("/parsed", content=content, headers={"Content-Type": "application/json"})
        assert response.status_code == 413


async def test_refused_body_is_not_read() -> None:
    sent = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        raise AssertionError("reached")

    async def receive():  # type: ignore[no-untyped-def]
        raise AssertionError("read")

    async def send(message):  # type: ignore[no-untyped-def]
        sent.append(message)

    scope = {"type": "http", "headers": [(b"content-length", b"101")]}
    await BodyLimit(app, max_bytes=100)(scope, receive, send)
    assert sent[0]["status"] == 413
