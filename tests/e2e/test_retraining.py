"""The loop is closed: what visitors click on the service is what the next model is trained on."""

import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from service.app import create_app
from service.settings import load_settings
from srgnn.recommender import Recommender
from training.corpus import Corpus

Running = Callable[[FastAPI], AbstractContextManager[str]]

SEED = 20261124
ITEMS = ["1", "2", "3", "Müsli 🥣", "a/b?c=d&e#f", '"quoted"']


def srgnn(*arguments: object) -> dict[str, Any]:
    """The last line of stdout, as JSON."""
    command = [sys.executable, "-m", "srgnn", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def visit(client: httpx.Client) -> dict[str, list[str]]:
    """Visitors click in between each other, send clicks twice, and one is forgotten; the items of each that stays."""
    chance = random.Random(SEED)
    sessions: dict[str, list[str]] = defaultdict(list)
    for number in range(400):
        session, item = f"s{chance.randrange(40):02d}", chance.choice(ITEMS)
        sessions[session].append(item)
        for _ in range(2 if chance.random() < 0.1 else 1):
            answer = client.post(f"/sessions/{session}/click", json={"item_id": item, "event_id": f"e{number}"})
            assert (answer.status_code, answer.json()["degraded"]) == (200, None)
    client.post("/sessions/s01/click", json={"item_id": "1", "consent": False})
    client.post("/sessions/s01/click", json={"item_id": ""})
    client.delete("/sessions/s07")
    del sessions["s07"]
    return sessions


def sessions_of(corpus: Corpus) -> list[list[str]]:
    ids = corpus.vocabulary.ids
    splits = (corpus.train, corpus.validation, corpus.test)
    return [[ids[row] for row in split.session(n)] for split in splits for n in range(split.num_sessions)]


def test_the_corpus_of_exported_clicks_holds_exactly_the_sessions(
    redis_url: str, tmp_path: Path, tiny_recommender: Recommender, running: Running
) -> None:
    settings = load_settings(redis_url=redis_url, store_timeout_ms=5000, clicks_per_second=0)
    app = create_app(settings, recommender=tiny_recommender)
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        wanted = visit(client)
    exported = srgnn(
        "export-clicks", "--redis-url", redis_url, "--output", tmp_path / "clicks", "--once", "--batch-rows", 150
    )
    assert (exported["lost"], exported["forgotten_sessions"]) == (0, 1)
    assert exported["files"] > 1
    assert sum(map(len, wanted.values())) + exported["forgotten_clicks"] == 400
    assert exported["duplicates"] == 0, "the store knew them"
    (tmp_path / "clicks" / ".clicks-2026-11-24-1-0-2-0.parquet.7.partial").write_bytes(b"half")
    prepared = srgnn("prepare", "--config", "default", "--input", tmp_path / "clicks", "--output", tmp_path / "corpus")
    assert (prepared["rows"], prepared["dropped"]) == (sum(map(len, wanted.values())), {})
    assert sorted(sessions_of(Corpus.open(tmp_path / "corpus"))) == sorted(wanted.values())
