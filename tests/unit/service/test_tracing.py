"""Traces as they arrive at a real OTLP endpoint."""

import asyncio
import json
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import load_settings
from service.telemetry import JsonFormatter
from service.tracing import FLUSH_SECONDS, span, start_tracing
from srgnn import __version__
from srgnn.errors import ConfigError
from srgnn.recommender import Recommender
from tests.collector import Collector, SentSpan
from tests.conftest import ClientOf

Running = Callable[[FastAPI], AbstractContextManager[str]]

SERVER = 2
"""A span's kind."""
CALLERS_TRACE, CALLERS_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-01"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """None of the machine's own."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def collector(environment: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


def app_of(recommender: Recommender, **settings: Any) -> FastAPI:
    return create_app(load_settings(deadline_ms=20_000, store_timeout_ms=5_000, **settings), recommender=recommender)


async def test_a_click_is_a_span_with_its_store_call_and_its_model_below(
    tiny_recommender: Recommender, client_of: ClientOf, redis_url: str, collector: Collector
) -> None:
    async with client_of(app_of(tiny_recommender, redis_url=redis_url)) as client:
        answer = await client.post("/sessions/s/click", json={"item_id": "100"}, headers={"X-Request-ID": "r-1"})
        assert answer.json()["source"] == "model"
    [click] = collector.named("POST /sessions/{session_id}/click")
    [store] = collector.named("store append")
    [model] = collector.named("model")
    assert {one.trace_id for one in (click, store, model)} == {click.trace_id}
    assert (click.parent_id, store.parent_id, model.parent_id) == ("", click.span_id, click.span_id)
    assert click.kind == SERVER
    assert click.attributes == {
        "http.request.method": "POST",
        "http.route": "/sessions/{session_id}/click",
        "http.response.status_code": 200,
        "srgnn.request_id": "r-1",
    }
    assert model.attributes == {
        "srgnn.model": "tiny-1",
        "srgnn.histories": 1,
        "srgnn.batch_size": 1,
        "srgnn.source": "model",
        "srgnn.degraded": "no",
    }
    assert not any(one.failed for one in collector.spans)


async def test_the_service_names_itself_unless_the_environment_does(
    tiny_recommender: Recommender, client_of: ClientOf, collector: Collector, environment: pytest.MonkeyPatch
) -> None:
    async with client_of(app_of(tiny_recommender)) as client:
        await client.get("/livez")
    environment.setenv("OTEL_SERVICE_NAME", "shop-recommender")
    environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with client_of(app_of(tiny_recommender)) as client:
        await client.get("/livez")
    unnamed, named = (one.resource for one in collector.spans)
    assert (unnamed["service.name"], named["service.name"]) == ("srgnn", "shop-recommender")
    assert named["deployment.environment.name"] == "test"
    for resource in (unnamed, named):
        assert (resource["service.version"], resource["process.pid"]) == (__version__, os.getpid())


async def test_a_request_continues_its_callers_trace(
    tiny_recommender: Recommender, client_of: ClientOf, collector: Collector
) -> None:
    async with client_of(app_of(tiny_recommender)) as client:
        await client.get("/livez", headers={"traceparent": TRACEPARENT})
        await client.get("/livez", headers={"traceparent": "00-nonsense"})
    continued, fresh = collector.spans
    assert (continued.trace_id, continued.parent_id) == (CALLERS_TRACE, CALLERS_SPAN)
    assert (fresh.trace_id != CALLERS_TRACE, fresh.parent_id) == (True, "")


def test_nothing_that_tells_who_or_what_leaves_the_house(
    tiny_recommender: Recommender, running: Running, redis_url: str, collector: Collector, environment: Any
) -> None:
    """Whatever happens to the request, and also where FastAPI's own variable tells it to export."""
    environment.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    session, item, event, key, query, host = told = [secrets.token_hex(12) for _ in range(6)]
    names = ("Authorization", "X-API-Key", "User-Agent", "Cookie", "Baggage")
    headers = {"Host": host, **{name: f"key={key}" for name in names}}
    app = app_of(tiny_recommender, redis_url=redis_url)

    @app.get("/sessions/{session_id}/breaks")
    async def breaks(session_id: str) -> None:
        with span("part"):
            raise RuntimeError(session_id)

    with running(app) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        path = f"/sessions/{session}"
        click = {"item_id": item, "event_id": event, "exclude": [item]}
        assert client.post(f"{path}/click", json=click).status_code == 200
        assert client.post(f"{path}/click?x={query}", json=click | {"k": -1}).status_code == 422
        assert client.post(f"{path}/click", content=session).status_code == 415
        assert client.get(f"{path}/recommendations?k={query}").status_code == 422
        assert client.get(f"{path}/nowhere/{item}?x={query}").status_code == 404
        assert client.request("PROPFIND", path).status_code == 405
        assert client.get(f"{path}/breaks").status_code == 500
        assert client.delete(path).status_code == 204
    assert [one.attributes["http.response.status_code"] for one in collector.spans if one.kind == SERVER] == [
        *(200, 422, 415, 422, 404, 405, 500, 204)
    ]
    sent = b"".join(collector.bodies).lower()
    assert not [one for one in told if one.encode() in sent]
    assert {name for one in collector.spans for name in one.attributes} <= {
        *("http.request.method", "http.route", "http.response.status_code", "error.type"),
        *("srgnn.request_id", "srgnn.model", "srgnn.histories", "srgnn.batch_size", "srgnn.source", "srgnn.degraded"),
    }
    assert not any(one.events for one in collector.spans)


async def test_failures_are_marked_and_refusals_are_not(
    tiny_recommender: Recommender, client_of: ClientOf, collector: Collector
) -> None:
    app = app_of(tiny_recommender)

    @app.get("/breaks")
    async def breaks() -> None:
        with span("part"):
            raise RuntimeError

    async with client_of(app) as client:
        await client.get("/breaks")
        await client.get("/sessions/s/recommendations?k=0")
        await client.get("/nowhere")
        await client.request("NONSENSE", "/livez")

    def outcome(one: SentSpan) -> tuple[object, ...]:
        return one.name, one.failed, one.attributes.get("error.type"), one.attributes.get("http.response.status_code")

    assert [outcome(one) for one in collector.spans] == [
        ("part", True, "RuntimeError", None),
        ("GET /breaks", True, "500", 500),
        ("GET /sessions/{session_id}/recommendations", False, None, 422),
        ("GET", False, None, 404),
        ("HTTP /livez", False, None, 405),
    ]
    assert collector.spans[-1].attributes["http.request.method"] == "_OTHER"


async def test_a_store_that_does_not_answer_fails_its_span_and_not_the_request(
    tiny_recommender: Recommender, client_of: ClientOf, collector: Collector
) -> None:
    async with client_of(app_of(tiny_recommender, redis_url="redis://:hidden-password@127.0.0.1:1/0")) as client:
        assert (await client.post("/sessions/s/click", json={"item_id": "100"})).status_code == 200
    [store] = collector.named("store append")
    assert (store.failed, store.attributes) == (True, {"error.type": "StoreSilent"})
    assert b"hidden-password" not in b"".join(collector.bodies)


async def test_what_answered_instead_of_the_model_is_said(
    tiny_recommender: Recommender, client_of: ClientOf, collector: Collector
) -> None:
    app = create_app(load_settings(deadline_ms=1, bulk_deadline_ms=1), recommender=Slow.of(tiny_recommender))
    async with client_of(app) as client:
        histories = [["100", "101"], []]
        await client.post("/recommendations", json={"histories": histories})
    [model] = collector.named("model")
    assert model.attributes["srgnn.degraded"] == "deadline"
    assert (model.attributes["srgnn.source"], model.attributes["srgnn.histories"]) == ("popularity,transitions", 2)
    assert model.attributes["srgnn.batch_size"] == 0


class Slow(Recommender):
    """Never in time."""

    @classmethod
    def of(cls, recommender: Recommender) -> "Slow":
        slow = cls.__new__(cls)
        vars(slow).update(vars(recommender))
        return slow

    def recommend(self, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return super().recommend(*arguments, **options)


async def test_log_lines_of_a_request_name_its_trace(
    tiny_recommender: Recommender, client_of: ClientOf, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(JsonFormatter())
    app = app_of(tiny_recommender)

    @app.get("/breaks")
    async def breaks() -> None:
        raise RuntimeError

    async with client_of(app) as client:
        await client.get("/breaks", headers={"traceparent": TRACEPARENT})
    logging.getLogger("service").warning("afterwards")
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    found = {line["message"]: line.get("trace_id") for line in lines if line["logger"].startswith("service")}
    assert found == {"unexpected error": CALLERS_TRACE, "request": CALLERS_TRACE, "afterwards": None}


async def test_the_sampler_is_the_environments(
    tiny_recommender: Recommender, client_of: ClientOf, collector: Collector, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with client_of(app_of(tiny_recommender)) as client:
        answer = await client.post("/sessions/s/click", json={"item_id": "100"}, headers={"traceparent": TRACEPARENT})
        assert answer.status_code == 200
    assert collector.requests == 0


async def test_the_exporters_headers_are_the_environments(
    tiny_recommender: Recommender, client_of: ClientOf, collector: Collector, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    async with client_of(app_of(tiny_recommender)) as client:
        await client.get("/livez")
    [headers] = collector.headers
    assert {name.lower(): value for name, value in headers.items()}["authorization"] == "Bearer abc"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "hangs"])
async def test_a_collector_that_is_down_or_hangs_fails_no_request_and_holds_up_no_stop(
    url: str, tiny_recommender: Recommender, client_of: ClientOf, environment: pytest.MonkeyPatch
) -> None:
    """More spans than the queue takes, so that some have to be dropped."""
    environment.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    environment.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    environment.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "300")  # seconds
    with Collector(hangs=True) as collector:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url if url == "hangs" else url)
        async with client_of(app_of(tiny_recommender)) as client:
            for _ in range(50):
                answer = await client.post("/sessions/s/click", json={"item_id": "100"})
                assert (answer.status_code, answer.json()["degraded"]) == (200, None)
            if url == "hangs":
                await asyncio.to_thread(collector.until, lambda: collector.requests > 0)
            stopping = time.monotonic()
        assert time.monotonic() - stopping < FLUSH_SECONDS + 15, "OpenTelemetry's own limit is 30 s"
    await asyncio.to_thread(no_exporter_left)


def no_exporter_left() -> None:
    """A thread that tries again draws from the process's random numbers, under the feet of the tests after this one."""
    for thread in threading.enumerate():
        if thread.name in ("OtelBatchSpanRecordProcessor", "stop tracing"):
            thread.join(15)
            assert not thread.is_alive(), f"{thread.name} goes on after the stop"


async def test_without_being_asked_for_nothing_of_it_is_there(
    tiny_recommender: Recommender, environment: pytest.MonkeyPatch
) -> None:
    middlewares = [one.cls.__name__ for one in app_of(tiny_recommender).user_middleware]
    assert "Traces" not in middlewares
    with span("part") as part:
        assert part is None


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_traces_are_asked_for_by_an_endpoint_or_an_exporter(
    variables: dict[str, str], asked: bool, environment: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    tracing = start_tracing()
    assert (tracing is not None) == asked
    if tracing:
        tracing.provider.shutdown()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "'zipkin'.*otlp only"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "'grpc'.*port 4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "'collector:4318'.*http://"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2", "do not fit together: max_export_batch_size"),
    ],
)
def test_what_cannot_be_done_is_said_at_the_start(
    name: str, value: str, told: str, environment: pytest.MonkeyPatch, tiny_recommender: Recommender
) -> None:
    environment.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    environment.setenv(name, value)
    with pytest.raises(ConfigError, match=told):
        app_of(tiny_recommender)


def test_missing_packages_are_named_with_their_extra(
    environment: pytest.MonkeyPatch, tiny_recommender: Recommender
) -> None:
    environment.setenv("OTEL_TRACES_EXPORTER", "otlp")
    environment.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install 'srgnn\[otel\]', or set OTEL_TRACES_EXPORTER=none"):
        app_of(tiny_recommender)


async def test_parts_of_requests_under_way_together_are_not_mixed_up(
    tiny_recommender: Recommender, client_of: ClientOf, redis_url: str, collector: Collector
) -> None:
    async with client_of(app_of(tiny_recommender, redis_url=redis_url)) as client:
        clicks = [client.post(f"/sessions/{n}/click", json={"item_id": "100"}) for n in range(20)]
        await asyncio.gather(*clicks)
    requests = {one.span_id: one.trace_id for one in collector.named("POST /sessions/{session_id}/click")}
    assert len(set(requests.values())) == 20
    for part in ("store append", "model"):
        spans = collector.named(part)
        assert {one.parent_id for one in spans} == set(requests)
        assert all(one.trace_id == requests[one.parent_id] for one in spans)
    assert max(one.attributes["srgnn.batch_size"] for one in collector.named("model")) > 1
