"""The model is swapped under load, in one process and over several; every answer must be of the model that it names."""

import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import load_settings
from srgnn import artifact
from srgnn.recommender import Recommender
from tests.artifacts import damage, folder_with_two, name_latest
from tests.integration.processes import Service, serving, until

Running = Callable[[FastAPI], AbstractContextManager[str]]


@dataclass
class Load:
    """What clients got who clicked all the time, each in a session and over a connection of its own."""

    models: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def ask(self, client: httpx.Client, session: str, history: list[str], models: dict[str, Recommender]) -> None:
        history.append(str(100 + (7 * len(history)) % 50))
        response = client.post(f"/sessions/{session}/click", json={"item_id": history[-1]})
        if response.status_code != 200:
            self.wrong.append(response.text)
            return
        answer = response.json()
        self.models[answer["model"]] += 1
        [expected] = models[answer["model"]].recommend([history], 20)
        if answer["degraded"]:
            self.degraded[answer["degraded"]] += 1
        elif [item["item_id"] for item in answer["items"]] != expected.item_ids:
            self.wrong.append(f"not the answer of {answer['model']}: {answer}")
        if answer["clicks"] != len(history) and not answer["degraded"]:
            self.wrong.append(f"{len(history)} clicks, {answer}")


@contextmanager
def load(url: str, paths: tuple[Path, Path]) -> Iterator[Load]:
    """Three clients who click while the block runs."""
    models = {path.name: artifact.load(path).recommender for path in paths}
    found, stop = Load(), threading.Event()

    def click(number: int) -> None:
        history: list[str] = []
        with httpx.Client(base_url=url, timeout=30) as client:
            while not stop.is_set():
                try:
                    found.ask(client, f"load-{number}", history, models)
                except httpx.TransportError as error:
                    found.wrong.append(repr(error))
                time.sleep(0.01)

    threads = [threading.Thread(target=click, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def paths(tiny_artifact: Path, tmp_path: Path) -> tuple[Path, Path]:
    """What LATEST names, and another."""
    return folder_with_two(tiny_artifact, tmp_path / "artifacts")


def test_swaps_back_and_forth_under_load_fail_no_request(running: Running, paths: tuple[Path, Path]) -> None:
    tiny, other = paths
    app = create_app(load_settings(artifact=tiny.parent, deadline_ms=30_000, watch_seconds=0, clicks_per_second=0))
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as client, load(url, paths) as found:
        for old, new in [(tiny, other), (other, tiny)] * 4:
            time.sleep(0.2)
            response = client.post("/admin/model", json={"artifact": new.name})
            assert response.json() == {"old": old.name, "new": new.name}
        damage(other)
        assert client.post("/admin/model", json={"artifact": other.name}).status_code == 422
        time.sleep(0.2)
    assert found.wrong == []
    assert min(found.models[path.name] for path in paths) > 10
    assert not found.degraded


def everyone_serves(service: Service, path: Path) -> bool:
    """Connections are dealt out to both workers by chance."""
    return {service.get("/model").json()["model"] for _ in range(12)} == {path.name}


def test_two_workers_swap_together_under_load(paths: tuple[Path, Path], tmp_path: Path, redis_url: str) -> None:
    """By LATEST, by a request to any of them, by SIGHUP; one is killed in between."""
    tiny, other = paths
    with serving(tiny.parent, tmp_path, redis_url, watch_seconds="1") as service:
        with load(service.url, paths) as found:
            name_latest(tiny.parent, other.name)
            until(lambda: len(service.lines("model swapped")) == 1, service)
            assert everyone_serves(service, other)
            response = httpx.post(f"{service.url}/admin/model", json={"rollback": True}, timeout=60)
            assert response.json() == {"old": other.name, "new": tiny.name}
            assert everyone_serves(service, tiny)
            time.sleep(2.5)  # LATEST names the other one still
            assert everyone_serves(service, tiny)
            service.process.send_signal(signal.SIGHUP)
            until(lambda: len(service.lines("model swapped")) == 3, service)
            assert everyone_serves(service, other)
        assert found.wrong == []
        assert not found.degraded
        text = service.get("/metrics").text
        assert re.findall(r'^srgnn_model_info{name="(.*)"} 1.0$', text, re.MULTILINE) == [other.name]
        assert service.metric("srgnn_model_swaps_total") == 3

        service.workers()[0].kill()
        until(lambda: service.metric("srgnn_worker_replacements_total") == 1, service)
        until(lambda: service.metric("srgnn_workers") == 2, service)
        assert everyone_serves(service, other)

        damage(tiny)
        response = httpx.post(f"{service.url}/admin/model", json={"artifact": tiny.name}, timeout=60)
        assert response.status_code == 422
        assert "model.safetensors is damaged" in response.json()["detail"]
        assert everyone_serves(service, other)
        [line] = service.lines("the model was not swapped, the old one goes on")
        assert "is damaged" in str(line["cause"])
        assert 'srgnn_model_swaps_total{result="refused"} 1.0' in service.get("/metrics").text


def test_one_process_swaps_at_sighup_and_does_not_end(paths: tuple[Path, Path], tmp_path: Path, redis_url: str) -> None:
    tiny, other = paths
    with serving(tiny.parent, tmp_path, redis_url, workers=1, watch_seconds="0") as service:
        name_latest(tiny.parent, other.name)
        service.process.send_signal(signal.SIGHUP)
        until(lambda: everyone_serves(service, other), service)
