from typing import cast

import httpx
from fastapi import FastAPI

from service.inference import Batcher
from service.overload import Load
from service.quality import Quality
from service.sessions.memory import MemorySessionStore
from service.settings import load_settings
from service.state import Live, Service, ServiceDependency
from service.telemetry import Metrics
from srgnn.recommender import Recommender


def service_of(recommender: object) -> Service:
    metrics = Metrics("old")
    return Service(
        load_settings(),
        MemorySessionStore(max_clicks=10, idle_seconds=60, max_sessions=10),
        cast(Recommender, recommender),
        None,
        Batcher(queue_size=10, max_batch=4),
        metrics,
        Quality(metrics),
        Load(1, 0, metrics.refused),
    )


def test_a_swap_leaves_the_service_of_a_request_as_it_is() -> None:
    live = Live(service_of("old model"))
    of_a_request = live.service
    live.serve(cast(Recommender, "new model"), {"dataset": "new"}, previous="old")
    assert (of_a_request.recommender, of_a_request.previous) == ("old model", None)
    assert (live.service.recommender, live.service.previous) == ("new model", "old")
    assert live.service.manifest == {"dataset": "new"}
    assert live.service.drain is of_a_request.drain
    assert live.service.batcher is of_a_request.batcher


async def test_each_request_gets_the_service_as_it_is_then() -> None:
    app, live = FastAPI(), Live(service_of("old model"))

    @app.get("/")
    async def endpoint(service: ServiceDependency) -> str:
        return str(service.recommender)

    async def with_state(scope, receive, send):  # type: ignore[no-untyped-def]
        scope["state"] = {"live": live}
        await app(scope, receive, send)

    transport = httpx.ASGITransport(app=with_state)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/")).json() == "old model"
        live.serve(cast(Recommender, "new model"), {}, previous="old")
        assert (await client.get("/")).json() == "new model"
