"""A worker's end of the pipe, with the test for a parent; tests/integration/test_swap.py has real processes."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from ctypes import c_long, c_ulong
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service import member
from service.app import create_app
from service.rollout import Abandon, Answer, Ask, Commit, Done, Prepare
from service.settings import load_settings
from service.sharing import Share
from service.versions import Outcome, Versions, Wanted
from service.worker import Link
from tests.artifacts import damage, folder_with_two
from tests.conftest import ClientOf


@pytest.fixture
def paths(tiny_artifact: Path, tmp_path: Path) -> tuple[Path, Path]:
    return folder_with_two(tiny_artifact, tmp_path / "artifacts")


class Parent:
    def __init__(self, versions: Versions) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.link = Link(theirs, c_ulong(), Share((c_long * 2)(), 0), versions)

    @property
    def theirs(self) -> "Connection":
        return self.link.pipe

    async def hear(self) -> Any:
        assert await asyncio.to_thread(self.pipe.poll, 30)
        return self.pipe.recv()

    async def nothing_heard(self) -> bool:
        return not await asyncio.to_thread(self.pipe.poll, 0.3)


@pytest.fixture
def parent(paths: tuple[Path, Path]) -> Parent:
    return Parent(Versions(paths[0].parent))


@pytest.fixture
def app(parent: Parent) -> FastAPI:
    return create_app(load_settings(artifact="not looked at", deadline_ms=30_000), link=parent.link)


@pytest.fixture
async def client(app: FastAPI, client_of: ClientOf) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def model(client: httpx.AsyncClient) -> tuple[str, str | None]:
    info = (await client.get("/model")).json()
    return info["model"], info["previous"]


async def test_it_swaps_in_two_steps(client: httpx.AsyncClient, parent: Parent, paths: tuple[Path, Path]) -> None:
    tiny, other = paths
    parent.pipe.send(Prepare(4, other))
    assert await parent.hear() == Done(4)
    assert await model(client) == (tiny.name, None)
    parent.pipe.send(Commit(4))
    assert await parent.hear() == Done(4)
    assert await model(client) == (other.name, tiny.name)


async def test_a_bad_model_is_told_and_the_next_one_taken(
    client: httpx.AsyncClient, parent: Parent, paths: tuple[Path, Path]
) -> None:
    tiny, other = paths
    healthy = (other / "model.safetensors").read_bytes()
    damage(other)
    parent.pipe.send(Prepare(1, other))
    done = await parent.hear()
    assert (done.rollout, "is damaged" in done.refused) == (1, True)
    (other / "model.safetensors").write_bytes(healthy)
    for message in (Abandon(), Prepare(2, other)):
        parent.pipe.send(message)
    assert await parent.hear() == Done(2)
    assert (await model(client))[0] == tiny.name


async def test_what_was_given_up_is_not_told_any_more(
    app: FastAPI, client: httpx.AsyncClient, parent: Parent, paths: tuple[Path, Path]
) -> None:
    parent.pipe.send(Prepare(1, paths[1]))
    parent.pipe.send(Abandon())
    assert await parent.nothing_heard()
    assert app.state.swapper._next is None
    assert (await model(client))[0] == paths[0].name


async def test_who_asks_for_a_swap_gets_the_parents_answer(
    client: httpx.AsyncClient, parent: Parent, paths: tuple[Path, Path]
) -> None:
    first = asyncio.create_task(client.post("/admin/model", json={"rollback": True}))
    assert await parent.hear() == Ask(0, Wanted(rollback=True))
    second = asyncio.create_task(client.post("/admin/model", json={"artifact": "x"}))
    assert await parent.hear() == Ask(1, Wanted("x"))
    parent.pipe.send(Answer(1, Outcome("a", "a", "busy", conflict=True)))
    assert ((await second).status_code, (await second).json()["detail"]) == (409, "busy. Model a goes on answering.")
    parent.pipe.send(Answer(0, Outcome("a", "b")))
    assert (await first).json() == {"old": "a", "new": "b"}
    metrics = (await client.get("/metrics")).text
    assert 'srgnn_model_swaps_total{result="swapped"} 1.0' in metrics
    assert 'srgnn_model_swaps_total{result="refused"} 1.0' in metrics


async def test_it_counts_what_nobody_asked_for(client: httpx.AsyncClient, parent: Parent) -> None:
    parent.pipe.send(Answer(None, Outcome("a", "b")))
    while 'srgnn_model_swaps_total{result="swapped"} 1.0' not in (await client.get("/metrics")).text:
        await asyncio.sleep(0.01)


async def test_a_replacement_knows_the_model_before(
    parent: Parent, paths: tuple[Path, Path], client_of: ClientOf
) -> None:
    parent.link.versions.moved_to(paths[1])
    app = create_app(load_settings(artifact="not looked at"), link=parent.link)
    async with client_of(app) as client:
        assert await model(client) == (paths[1].name, paths[0].name)


async def test_its_event_loop_beats(
    parent: Parent, app: FastAPI, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "BEAT_SECONDS", 0.01)
    async with client_of(app):
        while parent.link.beats.value < 3:
            await asyncio.sleep(0.01)
    stopped = parent.link.beats.value
    await asyncio.sleep(0.1)
    assert parent.link.beats.value == stopped


async def test_what_the_parent_said_last_is_done(
    client: httpx.AsyncClient, parent: Parent, paths: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    parent.pipe.send(Prepare(1, paths[1]))
    assert await parent.hear() == Done(1)
    parent.pipe.send(Commit(1))
    parent.pipe.close()
    while await model(client) != (paths[1].name, paths[0].name):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_swap_waits_for_no_parent_that_is_gone(client: httpx.AsyncClient, parent: Parent) -> None:
    asked = asyncio.create_task(client.post("/admin/model", json={"rollback": True}))
    assert await parent.hear() == Ask(0, Wanted(rollback=True))
    parent.pipe.close()
    for response in (await asked, await client.post("/admin/model", json={"rollback": True})):
        assert response.status_code == 409
        assert response.json()["detail"].startswith("the service is about to stop. Model tiny-")


async def test_without_its_parent_it_goes_on_until_it_is_told(client: httpx.AsyncClient, parent: Parent) -> None:
    parent.pipe.close()
    await asyncio.sleep(0.1)
    assert (await client.get("/readyz")).status_code == 200
