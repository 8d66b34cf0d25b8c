"""The loop is closed: what visitors click on the service is what the next model is trained on."""

import json
import random
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.click_stream import Writer
from training.corpus import Corpus

SEED = 20261124
ITEMS = ["1", "2", "3", "Müsli 🥣", "a/b?c=d&e#f", '"quoted"']


def srgnn(*arguments: object) -> dict[str, Any]:
    """The last line of stdout, as JSON."""
    command = [sys.executable, "-m", "srgnn", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def visit(url: str) -> dict[str, list[str]]:
    """Visitors click in between each other, send clicks twice, and one is forgotten; the items of each that stays."""
    chance = random.Random(SEED)
    sessions: dict[str, list[str]] = defaultdict(list)
    # With the service in between these are POST /sessions/{id}/click and DELETE /sessions/{id}.
    with closing(Writer(url)) as visitor:
        for number in range(400):
            session, item = f"s{chance.randrange(40):02d}", chance.choice(ITEMS)
            visitor.click(session, item, f"e{number}")
            sessions[session].append(item)
            if chance.random() < 0.1:
                visitor.click(session, item, f"e{number}")
        visitor.forget("s07")
    del sessions["s07"]
    return sessions


def sessions_of(corpus: Corpus) -> list[list[str]]:
    ids = corpus.vocabulary.ids
    splits = (corpus.train, corpus.validation, corpus.test)
    return [[ids[row] for row in split.session(n)] for split in splits for n in range(split.num_sessions)]


def test_the_corpus_of_exported_clicks_holds_exactly_the_sessions(redis_url: str, tmp_path: Path) -> None:
    wanted = visit(redis_url)
    exported = srgnn(
        "export-clicks", "--redis-url", redis_url, "--output", tmp_path / "clicks", "--once", "--batch-rows", 150
    )
    assert (exported["lost"], exported["forgotten_sessions"]) == (0, 1)
    assert exported["files"] > 1
    assert exported["duplicates"] > 10
    (tmp_path / "clicks" / ".clicks-2026-11-24-1-0-2-0.parquet.7.partial").write_bytes(b"half")
    prepared = srgnn("prepare", "--config", "default", "--input", tmp_path / "clicks", "--output", tmp_path / "corpus")
    assert (prepared["rows"], prepared["dropped"]) == (sum(map(len, wanted.values())), {})
    assert sorted(sessions_of(Corpus.open(tmp_path / "corpus"))) == sorted(wanted.values())
