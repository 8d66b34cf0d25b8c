import json
import logging
import os
import re
import string
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI, Response
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.settings import load_settings
from service.telemetry import (
    METHODS,
    METRICS_DIRECTORY,
    JsonFormatter,
    Metrics,
    Telemetry,
    configure_logging,
    request_id,
    requests_answered,
)
from srgnn.recommender import Recommender
from tests.conftest import ClientOf


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("tiny-1")


@pytest.fixture
def app(metrics: Metrics) -> FastAPI:
    app = FastAPI()
    app.add_middleware(Telemetry, metrics=metrics)

    @app.get("/sessions/{session_id}")
    async def session(session_id: str) -> str | None:
        return request_id.get()

    @app.get("/breaks")
    async def breaks() -> None:
        raise RuntimeError("a secret inside")

    return app


async def get(app: FastAPI, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        return await client.request(method, path, headers=headers)


async def test_every_answer_carries_the_request_id_that_the_endpoint_sees(app: FastAPI) -> None:
    first, second = await get(app, "/sessions/a"), await get(app, "/sessions/a")
    assert first.headers["x-request-id"] == first.json()
    assert first.json() != second.json()
    assert "x-request-id" in (await get(app, "/nope")).headers


async def test_a_caller_may_name_the_request(app: FastAPI) -> None:
    assert (await get(app, "/sessions/a", **{"X-Request-ID": "abc-1"})).headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, 'a"b', "a{b}"])
async def test_a_name_unfit_for_a_log_is_replaced(app: FastAPI, name: str) -> None:
    assert (await get(app, "/sessions/a", **{"X-Request-ID": name})).headers["x-request-id"] != name


async def test_unexpected_error_is_a_logged_problem_without_internals(
    app: FastAPI, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    response = await get(app, "/breaks")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] in response.json()["detail"]
    assert "secret" not in response.text
    assert "a secret inside" in caplog.text
    assert b'srgnn_requests_total{method="GET",route="/breaks",status="500"} 1.0' in metrics.render()


async def test_labels_are_path_templates_and_never_what_was_sent(app: FastAPI, metrics: Metrics) -> None:
    for path in ("/sessions/alice", "/sessions/bob", "/alice", "/bob"):
        await get(app, path)
    await get(app, "/sessions/alice", method="ALICE")
    text = metrics.render().decode()
    assert 'route="/sessions/{session_id}",status="200"} 2.0' in text
    assert 'route="unmatched",status="404"} 2.0' in text
    assert 'method="other"' in text
    assert "alice" not in text.lower()
    assert metrics.served == 5


async def test_request_lines_are_for_debugging_and_for_failures(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await get(app, "/sessions/a")
        assert not [record for record in caplog.records if record.message == "request"]
    with caplog.at_level(logging.DEBUG):
        await get(app, "/sessions/a")
    [record] = [record for record in caplog.records if record.message == "request"]
    assert record.fields["route"] == "/sessions/{session_id}"  # type: ignore[attr-defined]


async def test_other_scopes_pass_through(metrics: Metrics) -> None:
    seen = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        seen.append(scope["type"])

    await Telemetry(app, metrics)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]
    assert metrics.served == 0


def record_with(message: str, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("service.x", logging.WARNING, __file__, 1, message, (), None)
    vars(record).update(extra)
    return record


def test_log_line_is_one_json_object_whatever_the_message() -> None:
    line = JsonFormatter().format(record_with('a "quoted"\nline', fields={"reason": "deadline"}))
    assert "\n" not in line
    content = json.loads(line)
    assert content["message"] == 'a "quoted"\nline'
    assert (content["level"], content["logger"], content["reason"]) == ("warning", "service.x", "deadline")
    assert content["time"].endswith("Z")
    assert "request_id" not in content


def test_log_line_names_request_and_exception() -> None:
    token = request_id.set("r1")
    try:
        raise ValueError("broken")
    except ValueError:
        line = JsonFormatter().format(record_with("x", exc_info=sys.exc_info()))
    finally:
        request_id.reset(token)
    assert json.loads(line)["request_id"] == "r1"
    assert "ValueError: broken" in json.loads(line)["exception"]


def test_logging_goes_to_stderr_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        root.handlers = []
        configure_logging("info")
        logging.getLogger("uvicorn.error").info("started")
        logging.getLogger("uvicorn.error").debug("too much")
    finally:
        root.handlers = before
        root.setLevel(level)
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "started"


def test_metrics_name_the_model(metrics: Metrics) -> None:
    assert b'srgnn_model_info{name="tiny-1"} 1.0' in metrics.render()


def test_only_the_model_that_answers_is_one(metrics: Metrics) -> None:
    made = datetime(2026, 11, 24, tzinfo=UTC)
    for name in ("tiny-2", "tiny-1", "tiny-3"):
        metrics.serves(name, made)
    text = metrics.render().decode()
    assert re.findall(r'^srgnn_model_info{name="(.*)"} 1.0$', text, re.MULTILINE) == ["tiny-3"]
    assert metrics.registry.get_sample_value("srgnn_model_created_timestamp_seconds") == made.timestamp()


WORKER = """
import sys
from service.telemetry import Metrics
metrics = Metrics("tiny-1")
metrics.queue_length.set(3)
metrics.request_done("GET", "/livez", 200, 0.004)
sys.stdout.buffer.write(metrics.render())
"""


def test_processes_that_share_a_directory_share_their_metrics(tmp_path: Path) -> None:
    def run() -> str:
        environment = os.environ | {METRICS_DIRECTORY: str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            [sys.executable, "-c", WORKER], env=environment, check=True, capture_output=True, text=True
        ).stdout

    run()
    text = run()
    assert 'srgnn_requests_total{method="GET",route="/livez",status="200"} 2.0' in text
    assert 'srgnn_request_seconds_bucket{le="0.005",route="/livez"} 2.0' in text
    assert "srgnn_queue_length 6.0" in text
    assert "srgnn_workers 2.0" in text
    assert 'srgnn_model_info{name="tiny-1"} 1.0' in text
    assert "pid=" not in text
    assert requests_answered(tmp_path) == 2


def test_metrics_say_when_the_model_was_made() -> None:
    made = datetime(2026, 11, 24, tzinfo=UTC)
    name = "srgnn_model_created_timestamp_seconds"
    assert Metrics("m", made).registry.get_sample_value(name) == made.timestamp()
    assert Metrics("m").registry.get_sample_value(name) is None


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return [line for line in lines if line["logger"].startswith("service.")]


@contextmanager
def own_logging() -> Iterator[None]:
    """As ``srgnn serve`` logs, to the end; pytest's own handlers stay."""
    root = logging.getLogger()
    before, level = root.handlers, root.level
    root.handlers = []
    configure_logging("info")
    [handler] = root.handlers
    root.handlers = [*before, handler]
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        root.setLevel(level)


async def test_an_outage_floods_no_log_and_every_line_is_counted(
    tiny_recommender: Recommender, client_of: ClientOf, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(redis_url="redis://127.0.0.1:1/0", deadline_ms=20_000)
    with own_logging():
        async with client_of(create_app(settings, recommender=tiny_recommender)) as client:
            for _ in range(60):
                assert (await client.post("/sessions/s/click", json={"item_id": "100"})).status_code == 200
                assert (await client.get("/sessions/s")).status_code == 503
    lines = logged(capsys)
    assert len(lines) < 60
    told = Counter[str]()
    for line in lines:
        told[line["message"]] += 1 + line.get("suppressed", 0)
        assert line["model"] == "tiny-1"
    assert (told["session store unavailable"], told["request"]) == (120, 60)


async def test_a_rare_failure_is_not_hidden_by_a_frequent_one(app: FastAPI, capsys: pytest.CaptureFixture[str]) -> None:
    @app.get("/full")
    async def full() -> Response:
        return Response(status_code=503)

    with own_logging():
        for path in (*["/full"] * 9, "/breaks", *["/full"] * 9):
            await get(app, path)
    failed = {(line["route"], line["status"]) for line in logged(capsys) if line["message"] == "request"}
    assert failed == {("/full", 503), ("/breaks", 500)}


ODD = string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@%/?#[]{}|\\^`\"<>é日"


def odd_request(random: Random) -> tuple[str, str, dict[str, str], bytes]:
    """Method, path, headers and body that nobody would send by accident."""
    word = "".join(random.choices(ODD, k=random.randrange(1, 40)))
    kept = quote(word, safe="")
    paths = ["/{}", "/sessions/{}", "/sessions/{}/click", "/sessions/{}/recommendations?k={}", "/{}/{}", "/docs/{}"]
    paths += ["/recommendations?{}", "/metrics/{}", "/livez?{}={}", "/sessions//{}", "/model", "/openapi.json/{}"]
    methods = ["GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH", "PURGE", "LOCK"]
    bodies = [b"", b"{", word.encode(), json.dumps({"item_id": word}).encode(), json.dumps({word: [word]}).encode()]
    headers = {"X-Request-ID": kept, "Content-Type": random.choice(["application/json", "text/plain", kept])}
    path = random.choice(paths).replace("{}", kept)
    return random.choice(methods), path, headers, random.choice(bodies)


def test_a_thousand_odd_requests_make_no_label_of_their_own(
    tiny_recommender: Recommender, running: Callable[[FastAPI], AbstractContextManager[str]]
) -> None:
    app = create_app(load_settings(deadline_ms=20_000), recommender=tiny_recommender)
    random = Random(1)
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(1000):
            method, path, headers, body = odd_request(random)
            client.request(method, path, headers=headers, content=body)
        found = list(text_string_to_metric_families(client.get("/metrics").text))
    samples = [sample for family in found for sample in family.samples]
    values: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        for label, value in sample.labels.items():
            values[label].add(value)
    assert values["route"] <= {*app.openapi()["paths"], "/docs", "/openapi.json", "unmatched"}
    assert values["method"] == METHODS | {"other"}
    assert values["status"] <= {"200", "204", "307", "400", "404", "405", "415", "422"}
    assert set(values) <= {"method", "route", "status", "le", "source", "degraded", "operation", "name", "result"}
    assert len(samples) < 400
