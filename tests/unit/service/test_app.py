from pathlib import Path

import pytest

from service.app import create_app, make_store
from service.sessions.breaker import Breaker
from service.sessions.memory import MemorySessionStore
from service.settings import load_settings
from srgnn.errors import ArtifactError, ConfigError
from srgnn.recommender import Recommender
from srgnn.scan import int8_is_native
from tests.conftest import ClientOf


async def test_the_artifact_of_the_settings_is_served(tiny_artifact: Path, client_of: ClientOf) -> None:
    async with client_of(create_app(load_settings(artifact=tiny_artifact))) as client:
        info = (await client.get("/model")).json()
        click = (await client.post("/sessions/s/click", json={"item_id": "100"})).json()
    assert info["model"] == click["model"] == (tiny_artifact / "LATEST").read_text().strip()
    assert (info["items"], info["max_length"], info["manifest"]["dataset"]) == (40, 8, "tiny")
    assert info["search"] == ("int8" if int8_is_native() else "int8-compiled")


def test_missing_artifact_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        create_app(load_settings(artifact=tmp_path))


def test_damaged_artifact_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    import shutil

    name = (tiny_artifact / "LATEST").read_text().strip()
    damaged = shutil.copytree(tiny_artifact / name, tmp_path / name)
    with (damaged / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        create_app(load_settings(artifact=damaged))


def test_keeping_fewer_clicks_than_the_model_looks_at_is_refused(tiny_recommender: Recommender) -> None:
    create_app(load_settings(max_clicks=8), recommender=tiny_recommender)
    with pytest.raises(ConfigError, match=r"SRGNN_MAX_CLICKS is 7.*last 8 clicks"):
        create_app(load_settings(max_clicks=7), recommender=tiny_recommender)


async def test_store_follows_the_settings() -> None:
    assert isinstance(make_store(load_settings()), MemorySessionStore)
    store = make_store(load_settings(redis_url="redis://127.0.0.1:1/0"))
    assert isinstance(store, Breaker)
    await store.aclose()


class ClosingStore(MemorySessionStore):
    closed = False

    async def aclose(self) -> None:
        self.closed = True


async def test_a_store_that_was_given_is_left_open(tiny_recommender: Recommender, client_of: ClientOf) -> None:
    store = ClosingStore(max_clicks=10, idle_seconds=60, max_sessions=10)
    async with client_of(create_app(load_settings(), store=store, recommender=tiny_recommender)) as client:
        await client.post("/sessions/s/click", json={"item_id": "100"})
    assert not store.closed
    assert (await store.read("s")).items == ("100",)


async def test_two_applications_in_one_process_do_not_share_metrics(
    tiny_recommender: Recommender, client_of: ClientOf
) -> None:
    first, second = (create_app(load_settings(), recommender=tiny_recommender) for _ in range(2))
    async with client_of(first) as client:
        await client.get("/livez")
    assert (first.state.metrics.served, second.state.metrics.served) == (1, 0)
