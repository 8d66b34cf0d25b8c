"""Every fault of the way to Redis, under a trickle of clicks: promises about each click, no speeds."""

import gc
import logging
from collections.abc import Iterator

import pytest

from benchmarks.faults import Figures, measure
from service.app import create_app
from service.settings import load_settings
from srgnn.recommender import Recommender
from tests.conftest import _running
from tests.redis_server import RedisServer
from tests.tcp_proxy import FAULTS, HEALTHY, Proxy

SECONDS = 0.6
BEARABLE = {"latency", "byte by byte"}
"""Redis still answers in time, at least mostly; under all other faults it does not."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that may be killed: what it answered is on disk."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def url(tiny_recommender: Recommender, proxy: Proxy) -> Iterator[str]:
    settings = load_settings(redis_url=f"redis://127.0.0.1:{proxy.port}/0", deadline_ms=20_000)
    with _running(create_app(settings, recommender=tiny_recommender)) as url:
        yield url


@pytest.fixture(autouse=True)
def no_unexpected_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    gc.collect()  # then asyncio tells of errors that nobody looked at
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert {record.getMessage() for record in errors if not refused_read(record)} <= {
        "session store silent, answering without it"
    }


def refused_read(record: logging.LogRecord) -> bool:
    """A session cannot be read back while the store is away: 503, and the check asks again. Clicks never get one."""
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields.get("method") == "GET" and fields.get("status") == 503


def check_promises(figures: Figures) -> None:
    """Holds whatever the fault."""
    assert figures.clicks > 0
    assert figures.not_answered == 0
    assert not figures.broken
    assert figures.lost == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_click_is_answered_stored_once_and_told_the_truth(
    url: str, proxy: Proxy, tiny_recommender: Recommender, fault: str
) -> None:
    items = tiny_recommender.vocabulary.ids
    figures = await measure(
        url, items, fault, lambda: proxy.switch(FAULTS[fault]), lambda: proxy.switch(HEALTHY), seconds=SECONDS
    )
    check_promises(figures)
    assert figures.degraded > 0 or fault in BEARABLE


async def test_a_hung_redis_is_told_and_stores_each_click_once(
    url: str, redis: RedisServer, tiny_recommender: Recommender
) -> None:
    items = tiny_recommender.vocabulary.ids
    figures = await measure(url, items, "hung", redis.hang, redis.resume, seconds=SECONDS)
    check_promises(figures)
    assert figures.degraded > 0


async def test_what_was_acknowledged_outlives_a_killed_redis(
    url: str, redis: RedisServer, tiny_recommender: Recommender
) -> None:
    items = tiny_recommender.vocabulary.ids
    figures = await measure(url, items, "killed", redis.stop, redis.start, seconds=SECONDS)
    check_promises(figures)
    assert figures.degraded > 0
