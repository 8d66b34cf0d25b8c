"""Offline and online are one recommender: the same lists and the same figures through real HTTP and a real Redis."""

import re

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.settings import Settings
from srgnn.artifact import load
from training import metrics
from training.config import load_recipe
from training.corpus import Corpus
from training.evaluate import judge
from training.examples import Examples
from training.loop import train
from training.prepare import prepare
from training.replay import replay

SESSIONS = 150
# Windows shorter than many sessions, repeats, several epochs: whatever could differ online has to show.
SMALL = [
    "synthetic.sessions=3000", "synthetic.items=300", "synthetic.groups=6", "model.hidden_size=16",
    "rules.max_length=4", "training.epochs=2", "training.batch_size=128",
]  # fmt: skip


@pytest.fixture(scope="module", params=["false", "true"], ids=["alone", "evidence"])
def trained(request, tmp_path_factory):
    """A corpus of simulated clicks and the folder of an artifact trained on it."""
    folder = tmp_path_factory.mktemp("parity")
    recipe = load_recipe("demo", [*SMALL, *(f"training.{name}={request.param}" for name in ("habits", "neighbours"))])
    prepare(recipe, [], folder / "corpus")
    corpus = Corpus.open(folder / "corpus")
    train(recipe, corpus, folder / "artifacts")
    return corpus, folder / "artifacts"


@pytest.fixture(params=["redis", "memory"])
def settings(request, trained, redis_url):
    return Settings(
        artifact=trained[1],
        redis_url=redis_url if request.param == "redis" else None,
        store_timeout_ms=5000,
        deadline_ms=60000,
    )


@pytest.fixture
def replayed(trained, settings, running):
    """The first sessions of the test split, sent click by click; and the service's metrics afterwards."""
    corpus, _ = trained
    with running(create_app(settings)) as url, httpx.Client(base_url=url, timeout=30) as client:
        online = replay(corpus.test, corpus.vocabulary, client, limit=SESSIONS, concurrency=8, shown=False)
        return online, client.get("/metrics").text


def test_replayed_sessions_get_the_offline_lists_and_figures(trained, replayed):
    corpus, folder = trained
    online, _ = replayed

    assert online.errors == ()
    assert not online.degraded.any()
    assert set(online.sources) == {"model"}
    examples = Examples(corpus.test, load(folder).recommender.rules)
    chosen = np.flatnonzero(np.isin(examples.session, np.unique(online.session)))
    assert len(np.unique(online.session)) == SESSIONS
    assert (examples.positions[chosen] > 4).any(), "no session is longer than the window: the test shows nothing"

    recommender = load(folder).recommender
    offline_rows = recommender.recommend_rows(examples.sequences(chosen), 20).rows
    np.testing.assert_array_equal(online.rows, offline_rows)

    offline = judge(recommender, examples, k=20, shown=False)
    assert not offline.ties[chosen].any()
    for figure in (metrics.recall_at, metrics.mrr_at):
        assert figure(online.rank, 20) == figure(offline.rank[chosen], 20)
    assert metrics.recall_at(online.rank, 20) > 0.3, "a model that knows nothing would pass too"


def test_the_service_reports_the_figures_of_offline_evaluation(trained, replayed):
    corpus, folder = trained
    online, exposed = replayed
    recommender = load(folder).recommender
    examples = Examples(corpus.test, recommender.rules)
    chosen = np.flatnonzero(np.isin(examples.session, np.unique(online.session)))
    rows = recommender.recommend_rows(examples.sequences(chosen), 20).rows
    # A replay ends with the last click but one: nothing was sent that judges the last answer of a session.
    followed = examples.session[chosen][:-1] == examples.session[chosen][1:]
    judged = chosen[:-1][followed]
    ranks = metrics.list_ranks(rows[:-1][followed], examples.targets[judged])

    assert counted(exposed, "srgnn_judged_answers_total") == len(judged) > 100
    assert counted(exposed, "srgnn_judged_hits_total") / len(judged) == metrics.recall_at(ranks, 20)
    reciprocal = counted(exposed, "srgnn_judged_reciprocal_ranks_total")
    assert reciprocal / len(judged) == pytest.approx(metrics.mrr_at(ranks, 20), rel=1e-12)
    repeats = sum(corpus.test.session(examples.session[i])[: examples.positions[i]].tolist().count(t) > 0
                  for i, t in zip(judged, examples.targets[judged], strict=True))  # fmt: skip
    assert counted(exposed, "srgnn_judged_repeats_total") == repeats > 0
    servable = recommender.fallback.clicks > 0
    shown = np.bincount(rows.ravel(), minlength=len(servable))
    assert counted(exposed, "srgnn_coverage_ratio") == metrics.exposure(shown, recommender.fallback.clicks).coverage
    assert counted(exposed, "srgnn_answers_total", 'source="model"') == len(chosen)


def counted(exposed: str, name: str, label: str = "") -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*{label}.*}})? (\S+)$", exposed, re.MULTILINE))
