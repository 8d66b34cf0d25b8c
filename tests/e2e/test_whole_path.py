"""The whole path by the command line, each command a process of its own, as README shows it."""

import json
import re
import subprocess
import sys

import httpx
import pytest

SMALL = [
    "synthetic.sessions=2000", "synthetic.items=200", "synthetic.groups=4", "model.hidden_size=16",
    "training.epochs=4", "training.batch_size=64",
]  # fmt: skip
SET = [part for setting in SMALL for part in ("--set", setting)]


def srgnn(*arguments):
    """The last line of stdout, as JSON."""
    command = [sys.executable, "-m", "srgnn", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("path")


@pytest.fixture(scope="module")
def prepared(folder):
    return srgnn("prepare", "--config", "demo", "--output", folder / "corpus", *SET)


@pytest.fixture(scope="module")
def trained(folder, prepared):
    return srgnn("train", "--config", "demo", "--corpus", folder / "corpus", "--output", folder / "artifacts", *SET)


def test_prepare_counts_what_it_did(prepared):
    assert prepared["items"] <= 200
    assert prepared["clicks"] == prepared["rows"] - prepared["dropped_rows"]
    assert prepared["train_examples"] > prepared["validation_examples"] > 0 < prepared["test_examples"]


def test_evaluate_beats_popularity_and_stays_below_the_best_achievable(folder, prepared, trained):
    found = srgnn(
        "evaluate",
        folder / "artifacts",
        "--corpus",
        folder / "corpus",
        "--baselines",
        "--json",
        folder / "e.json",
    )
    assert found == json.loads((folder / "e.json").read_text())
    assert found["n"] == prepared["test_examples"]
    assert found["baselines"]["popularity"]["recall@20"] < found["recall@20"] < prepared["best_achievable_recall@20"]
    assert found["recall@1"] <= found["recall@5"] <= found["recall@10"] <= found["recall@20"]


def test_recommend_answers_a_history_and_a_file(folder, trained):
    one = srgnn("recommend", folder / "artifacts", "--history", "1,2", "-k", 3)
    assert len(one["items"]) == 3
    (folder / "sessions.txt").write_text("1 2\n3\n")
    many = srgnn(
        "recommend",
        trained["artifact"],
        "--input",
        folder / "sessions.txt",
        "--output",
        folder / "o.jsonl",
        "-k",
        3,
    )
    assert many["histories"] == 2
    first = json.loads((folder / "o.jsonl").read_text().splitlines()[0])
    assert [entry["item_id"] for entry in first["items"]] == [entry["item_id"] for entry in one["items"]]


def test_inspect_shows_the_artifact(folder, trained):
    assert srgnn("inspect", folder / "artifacts")["path"] == trained["artifact"]


def test_serve_and_replay(folder, trained, redis_url):
    command = [sys.executable, "-m", "srgnn", "serve", "--artifact", str(folder / "artifacts"), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--redis-url", redis_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        log = next(line for line in process.stderr if "http://" in line)
        url = re.search(r"http://[\d.]+:\d+", log).group()
        wait = httpx.HTTPTransport(retries=5)
        with httpx.Client(base_url=url, transport=wait, timeout=30) as client:
            answer = client.post("/sessions/me/click", json={"item_id": "1", "k": 5}).json()
        assert len(answer["items"]) == 5
        replayed = srgnn("replay", "--corpus", folder / "corpus", "--url", url, "--limit", 20)
        assert replayed["errors"] == 0
        assert replayed["sessions"] == 20
    finally:
        process.terminate()
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert json.loads(output.splitlines()[-1])["served"] > 20
