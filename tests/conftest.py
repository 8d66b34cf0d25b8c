"""Fixtures shared by several rooms: a real Redis, a small real recommender, a running service."""

import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from hypothesis import settings

from service.connections import BoundedHttp
from srgnn import ann, artifact
from srgnn.blend import NOTHING_BESIDE, Beside, BlendWeights, model_of
from srgnn.fallback import Fallback
from srgnn.habits import learn
from srgnn.loops import FloatArray
from srgnn.loops.habits import Habits
from srgnn.model import SRGNN, SRGNNConfig
from srgnn.neighbours import Neighbours
from srgnn.recommender import Recommender
from srgnn.scorer import SRGNNScorer
from srgnn.sequence import SessionRules
from srgnn.session_index import SessionIndex
from srgnn.vocabulary import Vocabulary
from tests.redis_server import RedisServer

# The models here are tiny: a second thread only waits for the first, and on a busy machine it waits long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

TINY_ITEMS = 40
TINY_RULES = SessionRules(max_length=8)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for the whole run; tests that stop it start their own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A Redis without data."""
    redis_server.command("FLUSHALL")
    return redis_server.url


def tiny_model() -> SRGNN:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return SRGNN(SRGNNConfig(hidden_size=16), TINY_ITEMS, TINY_RULES.max_length).eval()


def tiny_vocabulary() -> Vocabulary:
    """Ids that a log really holds: numbers, letters beyond ASCII, spaces, punctuation."""
    odd = ["Müsli 🥣", "a/b?c=d&e#f", '"quoted"', "{curly}", "日本語"]
    return Vocabulary([str(100 + row) for row in range(TINY_ITEMS - len(odd))] + odd)


def tiny_fallback() -> Fallback:
    """Every item clicked, each followed by its neighbour, lower rows more often."""
    sessions = [np.arange(row, TINY_ITEMS) for row in range(TINY_ITEMS)]
    offsets = np.cumsum([0, *map(len, sessions)])
    return Fallback.from_sessions(np.concatenate(sessions), offsets, TINY_ITEMS)


@pytest.fixture(scope="session")
def tiny_recommender() -> Recommender:
    """An untrained SR-GNN over 40 items."""
    fallback = tiny_fallback()
    scorer = SRGNNScorer.of_model(tiny_model(), fallback.clicks > 0)
    return Recommender(tiny_vocabulary(), TINY_RULES, scorer, fallback, version="tiny-1")


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved: the folder that holds LATEST."""
    ids = tiny_vocabulary().ids
    return save_tiny(tmp_path_factory.mktemp("artifacts"), [ids[:3], ids[-4:]])


def save_tiny(
    directory: Path,
    probe_histories: list[list[str]],
    beside: Beside = NOTHING_BESIDE,
    trend: FloatArray | None = None,
) -> Path:
    """``directory``, with the untrained SR-GNN over 40 items in it."""
    artifact.save(
        directory,
        dataset="tiny",
        model=tiny_model(),
        rules=TINY_RULES,
        vocabulary=tiny_vocabulary(),
        fallback=tiny_fallback(),
        probe_histories=probe_histories,
        provenance={},
        metrics={},
        beside=beside,
        trend=trend,
    )
    return directory


def tiny_neighbours() -> Neighbours:
    """Of the sessions that tiny_fallback counts."""
    sessions = [np.arange(row, TINY_ITEMS) for row in range(TINY_ITEMS)]
    offsets = np.cumsum([0, *map(len, sessions)])
    return Neighbours(SessionIndex.build(np.concatenate(sessions), offsets, TINY_ITEMS))


def tiny_habits() -> Habits:
    """Of sessions that click everything twice."""
    sequences = [np.repeat(np.arange(4), 2)[:length] for length in range(1, 8)] * 30
    lengths = np.array(list(map(len, sequences)))
    return learn(np.concatenate(sequences), lengths, lengths // 2)


def tiny_trend() -> FloatArray:
    """The later in the catalogue, the more clicked of late."""
    return np.linspace(-2, 1, TINY_ITEMS)


@pytest.fixture(scope="session")
def blended_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with habits, neighbours and a trend."""
    ids, weights = tiny_vocabulary().ids, BlendWeights(0.6, -1.0, 0.5, 0.5, 0.3, 0.4, -0.5, 0.3)
    histories = [ids[start : start + 3] for start in range(15)]
    beside = Beside(tiny_habits(), BlendWeights(clicked=-0.5, habit=0.7, trend=0.2), tiny_neighbours(), weights)
    return save_tiny(tmp_path_factory.mktemp("blended"), histories, beside, tiny_trend())


@pytest.fixture(scope="session")
def full_artifact(blended_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file there can be: neighbours, and an index of all its lists visited."""
    return add_index(blended_artifact, tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="session")
def indexed_artifact(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an index of all its lists visited."""
    return add_index(tiny_artifact, tmp_path_factory.mktemp("indexed"))


def add_index(folder: Path, directory: Path) -> Path:
    """The artifact of ``folder`` with an index of all its lists visited, in ``directory``."""
    old = artifact.load(folder)
    catalogue = model_of(old.recommender.scorer).catalogue
    index = ann.build(catalogue.matrix, catalogue.servable.numpy(), 4, shown=False)
    index.probes = index.lists
    artifact.save_with_index(directory, old, index, {"kind": "ivf"}, artifact.probe_histories(old.path)[:-1])
    return directory


ClientOf = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def client_of() -> ClientOf:
    """``async with client_of(app) as client``: the application with its lifespan, without a network."""
    return _in_process_client


@asynccontextmanager
async def _in_process_client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope, receive, send):  # type: ignore[no-untyped-def]
            scope["state"] = dict(state or {})
            await app(scope, receive, send)

        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client


@pytest.fixture
def running() -> Callable[[FastAPI], AbstractContextManager[str]]:
    """``with running(app) as url``: the application behind a real uvicorn in a thread of its own."""
    return _running


@contextmanager
def _running(app: FastAPI) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, http=BoundedHttp, port=0, ws="none", log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
