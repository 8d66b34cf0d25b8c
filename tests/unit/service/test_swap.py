"""One process; tests/integration/test_swap.py swaps under load, and over several workers."""

import asyncio
import gc
import json
import logging
import re
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service import inference, swap
from service.app import create_app
from service.settings import Settings, load_settings
from srgnn import artifact
from srgnn.catalogue import Top
from srgnn.engine import Engine
from srgnn.recommender import Asked, Recommender
from tests.artifacts import damage, folder_with_two, name_latest, save_model
from tests.conftest import ClientOf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def both(tiny_artifact: Path, folder: Path) -> tuple[str, str]:
    """Names of the model that is served, and of the other one beside it."""
    tiny, other = folder_with_two(tiny_artifact, folder)
    return tiny.name, other.name


def settings(folder: Path, **more: Any) -> Settings:
    return load_settings(artifact=folder, deadline_ms=30_000, **{"watch_seconds": 0} | more)


@pytest.fixture
async def app(both: tuple[str, str], folder: Path) -> FastAPI:
    return create_app(settings(folder))


@pytest.fixture
async def client(app: FastAPI, client_of: ClientOf) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def ask(client: httpx.AsyncClient, **body: object) -> tuple[int, dict[str, Any]]:
    response = await client.post("/admin/model", json=body)
    return response.status_code, response.json()


async def click(client: httpx.AsyncClient, item: str, **fields: object) -> dict[str, Any]:
    response = await client.post("/sessions/s/click", json={"item_id": item, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def serving(client: httpx.AsyncClient) -> str:
    return (await click(client, "115"))["model"]  # type: ignore[no-any-return]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def count(metrics: str, name: str) -> float:
    return sum(map(float, re.findall(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)))


async def test_by_name_back_and_forward_again(client: httpx.AsyncClient, both: tuple[str, str]) -> None:
    tiny, other = both
    assert await ask(client, artifact=other) == (200, {"old": tiny, "new": other})
    assert await serving(client) == other
    assert await ask(client, rollback=True) == (200, {"old": other, "new": tiny})
    assert await serving(client) == tiny
    assert await ask(client, rollback=True) == (200, {"old": tiny, "new": other})
    info = (await client.get("/model")).json()
    assert (info["model"], info["previous"], info["items"], info["manifest"]["dataset"]) == (other, tiny, 30, "other")
    metrics = (await client.get("/metrics")).text
    assert count(metrics, 'srgnn_model_swaps_total{result="swapped"}') == 3
    assert re.findall(r'^srgnn_model_info{name="(.*)"} 1.0$', metrics, re.MULTILINE) == [other]


async def test_what_latest_names(client: httpx.AsyncClient, folder: Path, both: tuple[str, str]) -> None:
    tiny, other = both
    assert await ask(client) == (200, {"old": tiny, "new": tiny})
    name_latest(folder, other)
    assert await ask(client) == (200, {"old": tiny, "new": other})
    assert await serving(client) == other


async def test_the_same_model_again_changes_nothing(client: httpx.AsyncClient, both: tuple[str, str]) -> None:
    tiny, _ = both
    assert await ask(client, artifact=tiny) == (200, {"old": tiny, "new": tiny})
    assert (await client.get("/model")).json()["previous"] is None
    assert 'srgnn_model_swaps_total{result="swapped"} 0.0' in (await client.get("/metrics")).text


async def test_a_session_lives_through_a_swap_to_other_items(
    client: httpx.AsyncClient, folder: Path, both: tuple[str, str]
) -> None:
    other = both[1]
    history = ["100", "115", "日本語", "139", "120"]
    for item in history[:-1]:
        await click(client, item)
    await ask(client, artifact=other)
    answer = await click(client, history[-1])
    [expected] = artifact.load(folder / other).recommender.recommend([history], 20)
    assert (answer["model"], answer["source"], answer["clicks"]) == (other, "model", 5)
    assert [item["item_id"] for item in answer["items"]] == expected.item_ids
    assert (await client.get("/sessions/s")).json()["items"] == history


def make_other_bad(folder: Path, other: str, how: str) -> None:
    if how == "damaged":
        damage(folder / other)
    elif how == "a file is missing":
        (folder / other / "vocabulary.txt").unlink()
    elif how == "renamed":
        (folder / other).rename(folder / f"{other}0")


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("damaged", "model.safetensors is damaged"),
        ("a file is missing", "vocabulary.txt is missing"),
        ("renamed", "manifest.json does not exist"),
    ],
)
async def test_a_bad_one_is_refused_and_the_reason_told_everywhere(
    client: httpx.AsyncClient,
    folder: Path,
    both: tuple[str, str],
    how: str,
    cause: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tiny, other = both
    make_other_bad(folder, other, how)
    status, problem = await ask(client, artifact=other)
    assert (status, problem["title"]) == (422, "The model was not swapped")
    assert cause in problem["detail"]
    assert f"Model {tiny} goes on answering" in problem["detail"]
    assert await serving(client) == tiny
    assert (await client.get("/model")).json()["previous"] is None
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR and "not swapped" in record.msg]
    assert cause in record.fields["cause"]  # type: ignore[attr-defined]
    assert 'srgnn_model_swaps_total{result="refused"} 1.0' in (await client.get("/metrics")).text


async def test_one_that_looks_at_more_clicks_than_are_kept_is_refused(
    both: tuple[str, str], folder: Path, client_of: ClientOf
) -> None:
    longer = save_model(folder, max_length=9)
    name_latest(folder, both[0])
    async with client_of(create_app(settings(folder, max_clicks=8))) as client:
        status, problem = await ask(client, artifact=longer.name)
    assert status == 422
    assert "SRGNN_MAX_CLICKS is 8" in problem["detail"]


async def test_one_whose_loading_breaks_in_an_unforeseen_way_is_refused(
    client: httpx.AsyncClient, both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(settings: Settings, path: Path) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(swap, "load", broken)
    status, problem = await ask(client, artifact=both[1])
    assert status == 422
    assert "cannot be loaded: MemoryError('no room')" in problem["detail"]
    assert await serving(client) == both[0]


async def test_one_that_fails_on_its_probes_in_the_batched_path_is_refused(
    client: httpx.AsyncClient, both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Recommender, history: list[str]) -> None:
        raise RuntimeError("no attention")

    monkeypatch.setattr(Recommender, "explain", failing)
    status, problem = await ask(client, artifact=both[1])
    assert (status, "no attention" in problem["detail"]) == (422, True)


async def test_without_one_before_there_is_no_way_back(client: httpx.AsyncClient) -> None:
    status, problem = await ask(client, rollback=True)
    assert status == 409
    assert "there is no model before this one" in problem["detail"]


async def test_a_rollback_checks_again(client: httpx.AsyncClient, folder: Path, both: tuple[str, str]) -> None:
    tiny, other = both
    await ask(client, artifact=other)
    damage(folder / tiny)
    status, problem = await ask(client, rollback=True)
    assert (status, "is damaged" in problem["detail"]) == (422, True)
    assert await serving(client) == other


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A new model is ready when this is set."""
    event, before = threading.Event(), swap.load

    def load(settings: Settings, path: Path) -> artifact.Artifact:
        assert event.wait(30)
        return before(settings, path)

    monkeypatch.setattr(swap, "load", load)
    return event


async def test_the_old_one_answers_while_the_new_one_loads_and_no_other_swap_begins(
    client: httpx.AsyncClient, both: tuple[str, str], held: threading.Event
) -> None:
    tiny, other = both
    first = asyncio.create_task(ask(client, artifact=other))
    await until(lambda: any(thread.name == "swap" for thread in threading.enumerate()))
    assert await serving(client) == tiny
    status, problem = await ask(client, artifact=tiny)
    assert (status, "another swap is under way" in problem["detail"]) == (409, True)
    held.set()
    assert await first == (200, {"old": tiny, "new": other})
    assert await serving(client) == other


async def test_a_request_under_way_ends_with_the_model_it_began_with(
    client: httpx.AsyncClient, both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wants more items than the new model has."""
    tiny, other = both
    may_answer, asked, before = asyncio.Event(), asyncio.Event(), inference.Batcher._through

    async def through(self: inference.Batcher, engine: Engine, question: Asked) -> Top | None:
        if question.k == 40:
            asked.set()
            await may_answer.wait()
        return await before(self, engine, question)

    monkeypatch.setattr(inference.Batcher, "_through", through)
    running, queued = (asyncio.create_task(click(client, "115", k=40)) for _ in range(2))
    await until(asked.is_set)
    await asyncio.sleep(0.05)
    assert await ask(client, artifact=other) == (200, {"old": tiny, "new": other})
    late = asyncio.create_task(click(client, "115", k=30))
    may_answer.set()
    for answer in await asyncio.gather(running, queued):
        assert (answer["model"], answer["source"], len(answer["items"])) == (tiny, "model", 40)
    assert ((await late)["model"], len((await late)["items"])) == (other, 30)
    refused = await client.post("/sessions/s/click", json={"item_id": "115", "k": 40})
    assert "the catalogue has 30 items" in refused.json()["detail"]


async def test_the_fallback_is_of_the_model_the_answer_names(
    both: tuple[str, str], folder: Path, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, other = both
    app = create_app(settings(folder))
    async with client_of(app) as client:

        async def predict(*args: object, **kwargs: object) -> None:
            await ask(client, artifact=other)
            raise inference.NotInferred("deadline")

        monkeypatch.setattr(inference.Batcher, "predict", predict)
        answer = await click(client, "100", k=40)
    assert (answer["model"], answer["degraded"], len(answer["items"])) == (tiny, "deadline", 40)


async def test_the_old_model_is_gone_after_a_swap_without_the_collector(
    app: FastAPI, both: tuple[str, str], folder: Path, client_of: ClientOf
) -> None:
    """What is frozen at the start is never looked through for cycles, so there must be none."""
    async with client_of(app) as client:
        await click(client, "115", explain=True)
        served = app.state.swapper._live.service.recommender
        parts = (served, served.scorer.catalogue, served.scorer, served.fallback, served.vocabulary)
        old = [weakref.ref(part) for part in parts]
        del served, parts
        gc.disable()
        try:
            await ask(client, artifact=both[1])
            assert [ref() for ref in old] == [None] * len(old)
            mapped = Path("/proc/self/maps").read_text()
            assert str(folder / both[1]) in mapped
            assert str(folder / both[0]) not in mapped
        finally:
            gc.enable()


async def test_where_the_start_froze_what_stays_so_does_a_swap(
    app: FastAPI, client: httpx.AsyncClient, both: tuple[str, str]
) -> None:
    tiny, other = both
    await ask(client, artifact=other)
    assert gc.get_freeze_count() == 0
    app.state.swapper.frozen = True
    try:
        await ask(client, artifact=tiny)
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


async def test_latest_is_followed_but_a_rollback_is_left_alone(
    both: tuple[str, str], folder: Path, client_of: ClientOf
) -> None:
    tiny, other = both
    app = create_app(settings(folder, watch_seconds=1))
    async with client_of(app) as client:
        name_latest(folder, other)
        await until(lambda: app.state.swapper.versions.current.name == other)
        assert await serving(client) == other
        await ask(client, rollback=True)
        await asyncio.sleep(2.5)
        assert await serving(client) == tiny
        third = save_model(folder, seed=3)
        await until(lambda: app.state.swapper.versions.current == third)


async def test_a_bad_latest_is_refused_once(
    both: tuple[str, str], folder: Path, client_of: ClientOf, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings(folder, watch_seconds=1))
    async with client_of(app) as client:
        damage(folder / both[1])
        name_latest(folder, both[1])
        await until(lambda: "not swapped" in caplog.text)
        await asyncio.sleep(2.5)
        assert await serving(client) == both[0]
        assert 'srgnn_model_swaps_total{result="refused"} 1.0' in (await client.get("/metrics")).text


async def test_a_signal_handler_may_ask_for_another_look(
    app: FastAPI, both: tuple[str, str], folder: Path, client_of: ClientOf
) -> None:
    name_latest(folder, both[1])
    app.state.swapper.look_again()  # before anything runs
    async with client_of(app) as client:
        await until(lambda: app.state.swapper.versions.current.name == both[1])
        name_latest(folder, both[0])
        threading.Thread(target=app.state.swapper.look_again).start()
        await until(lambda: app.state.swapper.versions.current.name == both[0])
        assert await serving(client) == both[0]


async def test_a_stop_does_not_wait_for_a_model_that_loads(
    app: FastAPI, both: tuple[str, str], folder: Path, client_of: ClientOf, held: threading.Event
) -> None:
    name_latest(folder, both[1])
    async with client_of(app):
        app.state.swapper.look_again()
        await until(lambda: any(thread.name == "swap" for thread in threading.enumerate()))
        await asyncio.sleep(0.1)
    assert app.state.swapper.versions.current.name == both[0]
    held.set()


async def test_a_model_that_is_not_loaded_in_time_is_refused(
    client: httpx.AsyncClient, both: tuple[str, str], held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "PREPARE_SECONDS", 0.2)
    status, problem = await ask(client, artifact=both[1])
    assert (status, "was not loaded within" in problem["detail"]) == (422, True)
    held.set()
    await until(lambda: not any(thread.name == "swap" for thread in threading.enumerate()))
    assert await serving(client) == both[0]


async def test_what_a_thread_raises_is_raised(app: FastAPI) -> None:
    with pytest.raises(json.JSONDecodeError):
        await swap.in_thread(json.loads, "{")
