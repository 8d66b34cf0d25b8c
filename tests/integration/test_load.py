"""The load generator against the real service and a real Redis: nothing fails, and order is kept per session."""

import json
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from benchmarks.load.__main__ import main
from benchmarks.load.measure import Plan, Target, measure
from benchmarks.load.traffic import Traffic
from service.app import create_app
from service.settings import load_settings
from tests.corpora import random_corpus


@pytest.fixture
def corpus(tmp_path, tiny_recommender):
    return random_corpus(tmp_path / "corpus", tiny_recommender.vocabulary)


def test_every_click_is_answered_and_stored_in_its_sessions_order(running, tiny_recommender, redis_url, corpus):
    settings = load_settings(redis_url=redis_url, store_timeout_ms=5000, deadline_ms=20_000)
    with running(create_app(settings, recommender=tiny_recommender)) as url, httpx.Client(base_url=url) as client:
        target = Target(client.base_url.host, client.base_url.port, check_every=1)
        traffic = Traffic(corpus.test, corpus.vocabulary, host=target.authority, run="load", k=20, live=2)
        result = measure(target, traffic, Plan(20, 1.0, mix={"click": 0.8, "read": 0.1, "stateless": 0.1}))
        assert (result.errors, result.error_reasons, result.degraded) == (0, {}, 0)
        assert result.requests == result.checked == 20
        stored = [client.get(f"/sessions/load-{number}").json()["items"] for number in range(10)]
    whole = [[corpus.vocabulary.ids[row] for row in corpus.test.session(number)] for number in range(10)]
    assert all(items == session[: len(items)] for items, session in zip(stored, whole, strict=True))
    assert sum(map(len, stored)) > 10
    assert max(map(len, stored)) > 2


def test_the_whole_command_serves_measures_and_ends_in_one_json_line(corpus, tiny_artifact: Path, tmp_path: Path):
    plot = tmp_path / "load.png"
    arguments = ["--corpus", str(corpus.path), "--artifact", str(tiny_artifact), "--rate", "20", "--bulk"]
    brief = ["--seconds", "0.5", "--warmup-seconds", "0.1", "--bulk-size", "8", "--plot", str(plot)]
    environment = {"SRGNN_STORE_TIMEOUT_MS": "5000", "SRGNN_DEADLINE_MS": "20000", "SRGNN_BULK_DEADLINE_MS": "20000"}
    result = CliRunner().invoke(main, [*arguments, *brief], env=environment, catch_exceptions=False)
    assert result.exit_code == 0
    found = json.loads(result.stdout.splitlines()[-1])
    [row] = found["results"]
    assert (row["requests"], row["errors"], row["degraded"]) == (10, 0, 0)
    assert set(row["cpu_cores"]) == set(found["memory_mb"]) | {"client"} == {"client", "service", "redis"}
    assert row["mean_batch"] >= 1
    assert found["bulk"]["errors"] == 0
    assert plot.stat().st_size > 10_000
