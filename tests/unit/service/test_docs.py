import re
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.keys import make
from service.settings import load_settings
from srgnn.recommender import Recommender
from tests.conftest import ClientOf


@pytest.fixture
async def client(tiny_recommender: Recommender, client_of: ClientOf) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(load_settings(), recommender=tiny_recommender)) as client:
        yield client


async def test_everything_the_page_loads_comes_from_here(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert not re.search(r"https?:|//\w", page.replace("http://www.w3.org", ""))
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 3
    for path in [*loaded, "/openapi.json"]:
        assert (await client.get(path)).status_code == 200


async def test_the_policy_allows_the_pages_own_script_and_no_other(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    [script] = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    assert policy["script-src"] == f"'self' 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "http" not in response.headers["content-security-policy"]


async def test_a_key_can_be_given_where_one_is_needed(
    tmp_path: Path, tiny_recommender: Recommender, client: httpx.AsyncClient, client_of: ClientOf
) -> None:
    assert "securitySchemes" not in (await client.get("/openapi.json")).json()["components"]
    make(tmp_path / "keys", "shop", ["read"])
    settings = load_settings(keys_file=tmp_path / "keys")
    async with client_of(create_app(settings, recommender=tiny_recommender)) as with_keys:
        document = (await with_keys.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert document["security"] == [{"key": []}]


@pytest.mark.parametrize("path", ["/docs/", "/docs/../settings.py", "/docs/%2e%2e/core.py", "/redoc"])
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code in (404, 405)
