"""The degradation ladder: every request gets an answer, and the answer says what it rests on.

1. session from the store -> model
2. store down or slow -> the history the request carries and its click (``store_unavailable``), else popularity
3. queue full, deadline near, model failing -> transitions of the last item, else popularity
4. empty or unknown history -> popularity (the recommender's own rule, not degraded)
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from srgnn.errors import StoreUnavailable

from .inference import NotInferred, Prediction, Query
from .schemas import ClickRequest, Degraded
from .sessions.store import Session
from .state import Service
from .tracing import span

logger = logging.getLogger(__name__)


class History(NamedTuple):
    """A session to answer for, and why it may not be the whole one."""

    session: Session
    degraded: Degraded | None = None


async def click(service: Service, session_id: str, request: ClickRequest) -> History:
    """Store a click, if it may be stored, and return the session that ends with it. Raises TooManyClicks."""
    as_told = Session((*request.history, request.item_id), clicks=len(request.history) + 1)
    if not request.consent:
        return History(as_told)
    try:
        return History(await service.store.append(session_id, request.item_id, request.event_id))
    except StoreUnavailable as error:
        store_failed(service, "append", error)
        return History(as_told, "store_unavailable")


async def history(service: Service, session_id: str) -> History:
    """Return the session as it is, or an empty one where the store does not answer."""
    try:
        return History(await service.store.read(session_id))
    except StoreUnavailable as error:
        store_failed(service, "read", error)
        return History(Session(), "store_unavailable")


async def predict(
    service: Service, queries: Sequence[Query], deadline_ms: int
) -> tuple[list[Prediction], Degraded | None]:
    """Answer all queries by the model, or all without it."""
    recommender = service.recommender
    with span("model") as part:
        predictions, degraded = await _predict(service, queries, deadline_ms)
        if part:
            sources = {one.recommendation.source for one in predictions}
            part.set_attribute("srgnn.model", recommender.version)
            part.set_attribute("srgnn.histories", len(queries))
            part.set_attribute("srgnn.batch_size", predictions[0].batch_size)
            part.set_attribute("srgnn.source", ",".join(sorted(sources)))
            part.set_attribute("srgnn.degraded", degraded or "no")
    return predictions, degraded


async def _predict(
    service: Service, queries: Sequence[Query], deadline_ms: int
) -> tuple[list[Prediction], Degraded | None]:
    recommender = service.recommender
    try:
        return await service.batcher.predict(recommender, queries, deadline_seconds=deadline_ms / 1000), None
    except NotInferred as error:
        logger.warning("answered without the model", extra={"fields": {"reason": error.reason}, "kind": error.reason})
        answers = [recommender.fall_back(query.history, query.k, query.excluded) for query in queries]
        return [Prediction(answer) for answer in answers], error.reason


def store_failed(service: Service, operation: str, error: StoreUnavailable) -> None:
    """Make a failure of the store visible."""
    service.metrics.store_failures.labels(operation).inc()
    fields = {"operation": operation, "cause": str(error)}
    logger.warning("session store unavailable", extra={"fields": fields, "kind": operation})
