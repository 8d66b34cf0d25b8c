"""What an operator sees: a request id, JSON log lines, Prometheus metrics with bounded labels."""

import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import problem
from .floods import CalmHandler
from .schemas import Source

logger = logging.getLogger(__name__)

METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus_client, when it is imported, keeps values in files of that directory."""
REQUEST_ID_HEADER = "X-Request-ID"
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""Set where the request is traced (:mod:`service.tracing`)."""
log_fields: dict[str, str] = {}
"""What every line of this process says: ``model``, once one is served."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Every other method is one to metrics and traces."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The service's metrics in a registry of their own; no label takes a value from a request.

    Of several workers each tells the sum of all; :mod:`service.workers` says how.
    """

    def __init__(self, model: str, created: datetime | None = None) -> None:
        self.registry = CollectorRegistry()
        self.shared = METRICS_DIRECTORY in os.environ
        self.requests = Counter(
            "srgnn_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "srgnn_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self.answers = Counter("srgnn_answers", "Histories answered.", ["source", "degraded"], registry=self.registry)
        self.store_failures = Counter(
            "srgnn_store_failures",
            "Calls the session store did not answer.",
            ["operation"],
            registry=self.registry,
        )
        self.store_silent = self._gauge(
            "srgnn_store_silent", "Workers that answer without the session store.", "livesum"
        )
        self._judged = self._judging()
        self.repeats = Counter(
            "srgnn_judged_repeats", "Next clicks on an item that the session had before.", registry=self.registry
        )
        self.coverage = self._gauge(
            "srgnn_coverage_ratio", "Share of the catalogue recommended in this hour or the last.", "livemostrecent"
        )
        self.refused = Counter("srgnn_refused_requests", "Requests refused for overload.", registry=self.registry)
        self.batch_size = Histogram(
            "srgnn_batch_size", "Histories per forward pass.", buckets=_SIZES, registry=self.registry
        )
        self.queue_length = self._gauge("srgnn_queue_length", "Histories waiting for the model.", "livesum")
        self.replacements = Counter(
            "srgnn_worker_replacements", "Workers started in place of one that died.", registry=self.registry
        )
        closed = Counter(
            "srgnn_connections_closed",
            "Connections closed on their client.",
            ["reason"],
            registry=self.registry,
        )
        self.served = 0
        # labels() takes longer than counting does. Their values are bounded, and so are these caches.
        self._requests = cache(self.requests.labels)
        self._seconds = cache(self.seconds.labels)
        self.answered = cache(self.answers.labels)
        self.connections_closed = cache(closed.labels)
        self._gauge("srgnn_workers", "Worker processes.", "livesum").set(1)
        self.swaps = Counter("srgnn_model_swaps", "Attempts to swap the model.", ["result"], registry=self.registry)
        for result in ("swapped", "refused"):
            self.swaps.labels(result)  # seen as 0 from the start, so that the first one is seen as a rise
        # What an Info would show; prometheus_client has none for several processes.
        self._info = self._gauge("srgnn_model_info", "1 for the model that answers.", "livemax", ["name"])
        self._age: Gauge | None = None
        self._model = model
        self.serves(model, created)

    def serves(self, model: str, created: datetime | None) -> None:
        """Show this model as the one that answers, in every log line too."""
        self._info.labels(self._model).set(0)
        self._info.labels(model).set(1)
        self._model = log_fields["model"] = model
        if created:
            self._age = self._age or self._gauge(
                "srgnn_model_created_timestamp_seconds", "When the model was made.", "livemax"
            )
            self._age.set(created.timestamp())

    def request_done(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; ``route`` is a path template."""
        self.served += 1
        self._requests(method if method in METHODS else "other", route, str(status)).inc()
        self._seconds(route).observe(seconds)

    def store_opened(self, silent: bool) -> None:
        """Show whether this worker has given up on the session store for now."""
        self.store_silent.set(int(silent))

    def judged(self, source: str, rank: int | None, *, repeat: bool) -> None:
        """Count an answer of ``source`` whose session clicked its item number ``rank`` next, None for another."""
        if counters := self._judged.get(source):
            answers, hits, reciprocal_ranks = counters
            answers.inc()
            hits.inc(rank is not None)
            reciprocal_ranks.inc(1 / rank if rank else 0)
            self.repeats.inc(repeat)

    def render(self) -> bytes:
        """The metrics of all workers in Prometheus' text format."""
        if not self.shared:
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)

    def _judging(self) -> dict[str, list[Counter]]:
        meanings = {
            "answers": "Answers to a click that another click followed.",
            "hits": "Those that held the item clicked next among their first 20.",
            "reciprocal_ranks": "The sum of 1 / its place, 0 where it was missing.",
        }
        counters = [
            Counter(f"srgnn_judged_{name}", meaning, ["source"], registry=self.registry)
            for name, meaning in meanings.items()
        ]
        return {source: [counter.labels(source) for counter in counters] for source in get_args(Source)}

    def _gauge(
        self,
        name: str,
        meaning: str,
        over_workers: Literal["livesum", "livemax", "livemostrecent"],
        labels: Sequence[str] = (),
    ) -> Gauge:
        return Gauge(name, meaning, labels, multiprocess_mode=over_workers, registry=self.registry)


def requests_answered(directory: Path | str) -> int:
    """By all processes with their metrics in ``directory``, those that are gone included."""
    collected = MultiProcessCollector(None, directory).collect()  # type: ignore[no-untyped-call]
    samples = (sample for metric in collected for sample in metric.samples)
    return int(sum(sample.value for sample in samples if sample.name == "srgnn_requests_total"))


class Telemetry:
    """ASGI middleware: names and measures each request, answers an unexpected exception with a problem."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; only HTTP is measured."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        name = _request_id(scope)
        token = request_id.set(name)
        status = 0
        started = time.perf_counter()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = name
            await send(message)

        try:
            await self.app(scope, receive, send_named)
        except Exception:
            logger.exception("unexpected error")
            if not status:
                await _internal_error()(scope, receive, send_named)
        finally:
            self._done(scope, status or 499, time.perf_counter() - started)
            request_id.reset(token)

    def _done(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.request_done(scope["method"], route, status, seconds)
        level = logging.ERROR if status >= 500 else logging.DEBUG
        if logger.isEnabledFor(level):
            fields = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 2),
            }
            # One kind for each, or those that fail most would hide the others.
            logger.log(level, "request", extra={"fields": fields, "kind": (route, status)})


def _request_id(scope: Scope) -> str:
    """The caller's id if it is fit for a log, else a new one."""
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _internal_error() -> ASGIApp:
    name = request_id.get()
    return problem(500, f"The service failed on this request; its log says why under request id {name}.")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; ``extra={"fields": {...}}`` adds keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **log_fields,
        }
        if name := request_id.get():
            line["request_id"] = name
        if trace := trace_id.get():
            line["trace_id"] = trace
        if suppressed := getattr(record, "suppressed", 0):
            line["suppressed"] = suppressed
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()

    @staticmethod
    def converter(seconds: float | None) -> time.struct_time:
        """Times in UTC."""
        return time.gmtime(seconds)


def configure_logging(level: str) -> None:
    """JSON lines on stderr for everything in this process, uvicorn included; those that repeat, once a second."""
    handler = CalmHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
