from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from service import ladder
from service.inference import Batcher, NotInferred, Prediction, Query, Reason
from service.overload import Load
from service.quality import Quality
from service.schemas import ClickRequest
from service.sessions.memory import MemorySessionStore
from service.sessions.store import Session, SessionStore
from service.settings import Settings
from service.state import Service
from service.telemetry import Metrics
from srgnn.errors import StoreUnavailable
from srgnn.recommender import Recommender


class BrokenStore(MemorySessionStore):
    async def append(self, session_id: str, item_id: str, event_id: str | None = None) -> Session:
        raise StoreUnavailable("down")

    async def read(self, session_id: str) -> Session:
        raise StoreUnavailable("down")


class RefusingBatcher(Batcher):
    def __init__(self, reason: Reason) -> None:
        self.reason = reason

    async def predict(
        self, recommender: Recommender, queries: Sequence[Query], *, deadline_seconds: float
    ) -> list[Prediction]:
        raise NotInferred(self.reason)


def store_of(kind: type[MemorySessionStore]) -> SessionStore:
    return kind(max_clicks=10, idle_seconds=60, max_sessions=10)


@pytest.fixture
async def service(tiny_recommender: Recommender) -> AsyncIterator[Service]:
    async with Batcher(queue_size=10, max_batch=4) as batcher:
        metrics, store = Metrics("tiny-1"), store_of(MemorySessionStore)
        yield Service(
            Settings(), store, tiny_recommender, None, batcher, metrics, Quality(metrics), Load(10, 0, metrics.refused)
        )


async def test_click_is_stored_and_answers_with_its_session(service: Service) -> None:
    await ladder.click(service, "s", ClickRequest(item_id="100"))
    found = await ladder.click(service, "s", ClickRequest(item_id="101"))
    assert found == ladder.History(Session(("100", "101"), 2), None)


async def test_without_consent_nothing_is_stored_nor_read(service: Service) -> None:
    await ladder.click(service, "s", ClickRequest(item_id="100"))
    found = await ladder.click(service, "s", ClickRequest(item_id="101", consent=False))
    assert found == ladder.History(Session(("101",), 1), None)
    assert (await service.store.read("s")).items == ("100",)


async def test_store_failure_leaves_the_current_click(service: Service) -> None:
    broken = replace(service, store=store_of(BrokenStore))
    found = await ladder.click(broken, "s", ClickRequest(item_id="100"))
    assert found == ladder.History(Session(("100",), 1), "store_unavailable")
    assert b'srgnn_store_failures_total{operation="append"} 1.0' in service.metrics.render()


async def test_the_history_of_the_request_stands_in_for_the_store_only_where_it_fails(service: Service) -> None:
    request = ClickRequest(item_id="103", history=["100", "101"])
    assert (await ladder.click(service, "s", request)).session == Session(("103",), 1)
    broken = replace(service, store=store_of(BrokenStore))
    assert (await ladder.click(broken, "s", request)).session == Session(("100", "101", "103"), 3)
    unstored = ClickRequest(item_id="103", history=["100", "101"], consent=False)
    assert await ladder.click(service, "s", unstored) == ladder.History(Session(("100", "101", "103"), 3))


async def test_without_consent_a_broken_store_is_not_even_asked(service: Service) -> None:
    broken = replace(service, store=store_of(BrokenStore))
    assert (await ladder.click(broken, "s", ClickRequest(item_id="100", consent=False))).degraded is None


async def test_store_failure_without_a_click_leaves_nothing(service: Service) -> None:
    broken = replace(service, store=store_of(BrokenStore))
    assert await ladder.history(broken, "s") == ladder.History(Session(), "store_unavailable")


async def test_model_answers_where_it_can(service: Service, tiny_recommender: Recommender) -> None:
    predictions, degraded = await ladder.predict(service, [Query(["100"], 5)], deadline_ms=10_000)
    assert predictions[0].recommendation.item_ids == tiny_recommender.recommend([["100"]], 5)[0].item_ids
    assert degraded is None


@pytest.mark.parametrize("reason", ["queue_full", "deadline", "model_error"])
async def test_without_the_model_transitions_of_the_last_item_answer(service: Service, reason: Reason) -> None:
    refusing = replace(service, batcher=RefusingBatcher(reason))
    queries = [
        Query(["100", "101"], 3),
        Query([], 2),
        Query(["103", "102"], 4, exclude_seen=True, explain=True),
    ]
    predictions, degraded = await ladder.predict(refusing, queries, deadline_ms=10)
    assert degraded == reason
    assert [one.recommendation.source for one in predictions] == ["transitions", "popularity", "popularity"]
    assert [len(one.recommendation.item_ids) for one in predictions] == [3, 2, 4]
    assert predictions[0].recommendation.item_ids[0] == "102", "what follows the last click in training"
    assert "103" not in predictions[2].recommendation.item_ids, "seen: all that follows 102 in training is excluded"
    assert predictions[2].attention is None
