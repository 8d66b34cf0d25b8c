from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.headers import HEADERS, SecurityHeaders
from service.settings import load_settings
from srgnn.recommender import Recommender
from tests.conftest import ClientOf


@pytest.fixture
async def client(tiny_recommender: Recommender, client_of: ClientOf) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(load_settings(max_body_bytes=1024, deadline_ms=30_000), recommender=tiny_recommender)

    @app.get("/breaks")
    async def breaks() -> None:
        raise RuntimeError

    async with client_of(app) as client:
        yield client


REQUESTS = [
    ("POST", "/sessions/s/click", b'{"item_id": "100"}', 200),
    ("POST", "/sessions/s/click", b"{}", 422),
    ("POST", "/sessions/s/click", b"nonsense", 400),
    ("POST", "/sessions/s/click", b"x" * 2000, 413),
    ("POST", "/recommendations", b'{"histories": [["100"]]}', 200),
    ("GET", "/sessions/s", b"", 200),
    ("DELETE", "/sessions/s", b"", 204),
    ("GET", "/metrics", b"", 200),
    ("GET", "/livez", b"", 200),
    ("GET", "/nothing", b"", 404),
    ("PUT", "/model", b"", 405),
    ("GET", "/openapi.json", b"", 200),
    ("GET", "/docs/swagger-ui-bundle.js", b"", 200),
    ("GET", "/breaks", b"", 500),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), REQUESTS)
async def test_every_answer_carries_each_header_once(
    client: httpx.AsyncClient, method: str, path: str, body: bytes, status: int
) -> None:
    response = await client.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    for name, value in HEADERS:
        assert response.headers.get_list(name.decode()) == [value.decode()]


async def test_what_is_not_http_passes() -> None:
    seen = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        seen.append(scope["type"])

    await SecurityHeaders(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


async def test_an_answer_that_is_sent_again_does_not_grow(client_of: ClientOf) -> None:
    from fastapi import Response

    made_once = Response()
    app = FastAPI()
    app.add_middleware(SecurityHeaders)
    app.add_route("/", made_once)  # type: ignore[arg-type]
    async with client_of(app) as client:
        first, second = (await client.get("/")).headers, (await client.get("/")).headers
    assert first == second
