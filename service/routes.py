"""The endpoints."""

import logging
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST

from srgnn.errors import StoreUnavailable

from . import inference, ladder
from .errors import PROBLEM_JSON, Fault, RequestRefused, problem
from .limits import check_size, resolve_k
from .schemas import (
    SESSION_ID_PATTERN,
    ClickRequest,
    Degraded,
    Liveness,
    ModelInfo,
    Problem,
    Readiness,
    RecommendationsAnswer,
    RecommendationsQuery,
    RecommendationsRequest,
    SessionAnswer,
    SessionHistory,
    SwapAnswer,
    SwapRequest,
)
from .state import Service, ServiceDependency, SwapsDependency
from .versions import Wanted

logger = logging.getLogger(__name__)

PROBLEM_SCHEMA = Problem.model_json_schema()
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning, "content": {PROBLEM_JSON: {"schema": PROBLEM_SCHEMA}}}
    for status, meaning in (
        ("4XX", "The request cannot be used; says which value, where, and what to send instead."),
        ("5XX", "The service cannot answer now; says why and what to do."),
    )
}

router = APIRouter(responses=PROBLEMS)

SessionId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=128,
        pattern=SESSION_ID_PATTERN,
        description="Chosen by the caller: 1 to 128 letters, digits and -._~!$&'()*+,;=:@, no dot first.",
        examples=["s1"],
    ),
]


@router.post("/sessions/{session_id}/click", response_model=SessionAnswer, tags=["sessions"])
async def click(session_id: SessionId, request: ClickRequest, service: ServiceDependency) -> Response:
    """Append a click to the session and recommend the next items."""
    settings = service.settings
    check_size(request.exclude, settings.max_exclude, place="body.exclude", setting="max_exclude")
    check_size(request.history, settings.max_history_length, place="body.history", setting="max_history_length")
    k = _k(service, request.k, "body.k")
    with service.load:
        found = await ladder.click(service, session_id, request)
        service.quality.judge(found.session)
        excluded = frozenset(request.exclude)
        query = inference.Query(found.session.items, k, excluded, request.exclude_seen, request.explain)
        return await _recommend(service, session_id, found, query)


@router.get("/sessions/{session_id}", response_model=SessionHistory, tags=["sessions"])
async def session(session_id: SessionId, service: ServiceDependency) -> Response:
    """Return what is kept of the session; an unknown or expired one is empty."""
    try:
        found = await service.store.read(session_id)
    except StoreUnavailable as error:
        ladder.store_failed(service, "read", error)
        raise
    return _json({"session_id": session_id, "items": found.items, "clicks": found.clicks})


@router.get("/sessions/{session_id}/recommendations", response_model=SessionAnswer, tags=["sessions"])
async def session_recommendations(
    session_id: SessionId, query: Annotated[RecommendationsQuery, Query()], service: ServiceDependency
) -> Response:
    """Recommend the next items without a click; popular items for an unknown session."""
    k = _k(service, query.k, "query.k")
    with service.load:
        found = await ladder.history(service, session_id)
        return await _recommend(service, session_id, found, inference.Query(found.session.items, k))


@router.delete("/sessions/{session_id}", status_code=204, tags=["sessions"])
async def forget(session_id: SessionId, service: ServiceDependency) -> Response:
    """Forget the session and everything known about it."""
    try:
        await service.store.delete(session_id)
    except StoreUnavailable as error:
        ladder.store_failed(service, "delete", error)
        raise
    return Response(status_code=204)


@router.post("/recommendations", response_model=RecommendationsAnswer, tags=["stateless"])
async def recommendations(request: RecommendationsRequest, service: ServiceDependency) -> Response:
    """Recommend for each history; nothing is stored, and the session store is not needed."""
    _check_histories(service, request)
    k = _k(service, request.k, "body.k")
    excluded = frozenset(request.exclude)
    queries = [inference.Query(items, k, excluded, request.exclude_seen) for items in request.histories]
    with service.load:
        predictions, degraded = await ladder.predict(service, queries, service.settings.bulk_deadline_ms)
    answers = [
        _answer(service, prediction, len(query.history), degraded)
        for query, prediction in zip(queries, predictions, strict=True)
    ]
    return _json({"recommendations": answers})


@router.get("/model", response_model=ModelInfo, tags=["operations"])
async def model(service: ServiceDependency) -> Response:
    """Describe the model that answers."""
    recommender = service.recommender
    return _json(
        {
            "model": recommender.version,
            "items": len(recommender.vocabulary),
            "max_length": recommender.rules.max_length,
            "search": recommender.scorer.search,
            "previous": service.previous,
            "manifest": service.manifest,
        }
    )


@router.post("/admin/model", response_model=SwapAnswer, tags=["operations"])
async def swap_model(request: SwapRequest, swaps: SwapsDependency) -> Response:
    """Swap the model for another, which is loaded and checked first; where it is refused, the old one goes on."""
    if request.artifact and request.rollback:
        raise RequestRefused(Fault("body.rollback", "true", "artifact is given as well", "send one of the two"))
    if swaps is None:
        return problem(409, "This service was started with a model that is no artifact: nothing can replace it.")
    outcome = await swaps.swap(Wanted(request.artifact, request.rollback))
    if outcome.refused:
        detail = f"{outcome.refused}. Model {outcome.old} goes on answering."
        return problem(409 if outcome.conflict else 422, detail, title="The model was not swapped")
    return _json({"old": outcome.old, "new": outcome.new})


@router.get("/livez", response_model=Liveness, tags=["operations"])
async def alive() -> Response:
    """Say that the process is alive."""
    return _json({"status": "alive"})


@router.get("/readyz", response_model=Readiness, tags=["operations"])
async def ready(service: ServiceDependency) -> Response:
    """Say whether requests should be sent here: always, until the service is about to stop."""
    if service.drain.begun:
        return problem(503, "This service is about to stop: send requests to another one.", title="Draining")
    try:
        await service.store.ping()
    except StoreUnavailable as error:  # of every replica at once: without one, nobody would answer at all
        ladder.store_failed(service, "ping", error)
        return _json({"status": "ready", "store": "unavailable"})
    return _json({"status": "ready", "store": "ok"})


@router.get("/metrics", tags=["operations"], response_class=Response)
async def metrics(service: ServiceDependency) -> Response:
    """Return the metrics in Prometheus' text format."""
    service.metrics.queue_length.set(service.batcher.waiting)
    service.metrics.coverage.set(service.quality.coverage())
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _recommend(service: Service, session_id: str, found: ladder.History, query: inference.Query) -> Response:
    [prediction], degraded = await ladder.predict(service, [query], service.settings.deadline_ms)
    answer = _answer(service, prediction, found.session.clicks, found.degraded or degraded)
    if prediction.recommendation.source == "popularity" and found.session.clicks and not degraded:
        logger.debug("no item of the session is known")
    answered = service.quality.answered(service.recommender, prediction.recommendation)
    if found.session.new:
        service.store.remember(session_id, found.session.clicks, answered)
    if query.explain:
        weights = prediction.attention
        answer["attention"] = weights and [{"item_id": item, "weight": weight} for item, weight in weights]
    return _json({"session_id": session_id, **answer})


def _answer(
    service: Service, prediction: inference.Prediction, clicks: int, degraded: Degraded | None
) -> dict[str, Any]:
    best = prediction.recommendation
    service.metrics.answered(best.source, degraded or "no").inc()
    return {
        "items": [{"item_id": item, "score": score} for item, score in zip(best.item_ids, best.scores, strict=True)],
        "source": best.source,
        "degraded": degraded,
        "clicks": clicks,
        "model": service.recommender.version,
    }


def _k(service: Service, requested: int | None, place: str) -> int:
    settings, catalogue = service.settings, len(service.recommender.vocabulary)
    return resolve_k(requested, default=settings.k, max_k=settings.max_k, catalogue=catalogue, place=place)


def _check_histories(service: Service, request: RecommendationsRequest) -> None:
    settings = service.settings
    check_size(request.histories, settings.max_histories, place="body.histories", setting="max_histories")
    for i, items in enumerate(request.histories):
        check_size(items, settings.max_history_length, place=f"body.histories[{i}]", setting="max_history_length")
    check_size(request.exclude, settings.max_exclude, place="body.exclude", setting="max_exclude")


def _json(content: dict[str, Any]) -> Response:
    # Encoded here: FastAPI validates no response that is already one, and response_model only documents it.
    return Response(orjson.dumps(content), media_type="application/json")
