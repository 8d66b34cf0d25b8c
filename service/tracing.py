"""Spans for OpenTelemetry, where its own environment variables ask for them; else nothing of it is imported.

A request is a span; below it are its calls to Redis and its wait for the model. Spans leave the house, so none holds a
session id, an item, a key or a header. That is why FastAPI's own telemetry is off and OpenTelemetry's instrumentation
of ASGI is not used: both record the path, which holds the session id.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from srgnn import __version__
from srgnn.errors import ConfigError

from .telemetry import METHODS, request_id, trace_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

FLUSH_SECONDS = 2.0
"""Longest a stop waits for the collector: less than a container or worker has left after ``shutdown_seconds``."""

_tracer: ContextVar["Tracer | None"] = ContextVar("tracer", default=None)
"""Of the request under way, where its spans are wanted."""
_NO_SPAN: AbstractContextManager[None] = nullcontext()


class Tracing(NamedTuple):
    """What makes spans, and what sends them."""

    provider: "TracerProvider"
    exporter: "SpanExporter"


def start_tracing() -> Tracing | None:
    """What makes spans and sends them, as OTEL_... variables say; None where they do not ask for it.

    They ask by naming an endpoint, or by OTEL_TRACES_EXPORTER=otlp. A thread sends, out of a queue of bounded length
    that drops what does not fit. Raises ConfigError for what cannot be had.
    """
    if not _asked_for():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            "traces are asked for by OTEL_... variables, but OpenTelemetry's packages are not installed: "
            "pip install 'srgnn[otel]', or set OTEL_TRACES_EXPORTER=none"
        ) from error
    ours = Resource({"service.name": "srgnn", "service.version": __version__, "process.pid": os.getpid()})
    resource = Resource.create(ours.merge(OTELResourceDetector().detect()).attributes)
    try:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter()
        provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:
        raise ConfigError(f"OTEL_... variables do not fit together: {error}") from error
    return Tracing(provider, exporter)


def _asked_for() -> bool:
    """Whether traces are wanted. Raises ConfigError for a way of sending them that is not built in."""
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
    endpoint = _first_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    protocol = _first_set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none" or not (exporter or endpoint):
        return False
    if exporter not in ("", "otlp"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER is {exporter!r}: traces can be sent by otlp only, or set none")
    if protocol not in ("", "http/protobuf"):
        raise ConfigError(
            f"the OTLP protocol is set to {protocol!r}: traces are sent by http/protobuf only, which collectors take "
            "on port 4318; unset OTEL_EXPORTER_OTLP_PROTOCOL"
        )
    if endpoint and not (urlsplit(endpoint).scheme in ("http", "https") and urlsplit(endpoint).hostname):
        raise ConfigError(f"the OTLP endpoint is {endpoint!r}: give a URL like http://collector:4318")
    return True


def _first_set(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


async def stop_tracing(tracing: Tracing) -> None:
    """Send what waits, for at most ``FLUSH_SECONDS``, then give it up.

    OpenTelemetry itself would wait 30 s for a hung collector, and try again for as long as its exporter is open.
    """
    thread = threading.Thread(target=tracing.provider.shutdown, name="stop tracing", daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, FLUSH_SECONDS)
    if thread.is_alive():
        tracing.exporter.shutdown()


class Traces:
    """ASGI middleware around all others: a span for each request, in the caller's trace where it names one."""

    def __init__(self, app: ASGIApp, tracer: "Tracer") -> None:
        from opentelemetry import propagate, trace

        self.app = app
        self._tracer = tracer
        self._extract = propagate.extract
        self._server = trace.SpanKind.SERVER

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, name = 0, None

        async def send_seen(message: Message) -> None:
            nonlocal status, name
            if message["type"] == "http.response.start":
                status, name = message["status"], request_id.get()
            await send(message)

        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        with self._tracer.start_as_current_span(
            method,
            context=self._extract(Headers(scope=scope)),
            kind=self._server,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            tokens = (
                trace_id.set(f"{span.get_span_context().trace_id:032x}"),
                _tracer.set(self._tracer if span.is_recording() else None),
            )
            try:
                await self.app(scope, receive, send_seen)
            finally:
                trace_id.reset(tokens[0])
                _tracer.reset(tokens[1])
                if span.is_recording():
                    _describe(span, method, getattr(scope.get("route"), "path", None), status, name)


def _describe(span: "Span", method: str, route: str | None, status: int, name: str | None) -> None:
    """Name and attributes as OpenTelemetry's conventions for HTTP servers have them, without those that tell who."""
    span.update_name(f"{'HTTP' if method == '_OTHER' else method} {route or ''}".rstrip())
    span.set_attribute("http.request.method", method)
    if route:
        span.set_attribute("http.route", route)
    if status:
        span.set_attribute("http.response.status_code", status)
    if name:
        span.set_attribute("srgnn.request_id", name)
    if not 0 < status < 500:
        _fail(span, str(status) if status else "no answer")


def span(name: str) -> AbstractContextManager["Span | None"]:
    """A part of the request under way, to which attributes can be added; None where no span is wanted."""
    tracer = _tracer.get()
    return _NO_SPAN if tracer is None else _part(tracer, name)


@contextmanager
def _part(tracer: "Tracer", name: str) -> Iterator["Span"]:
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as part:
        try:
            yield part
        except Exception as error:
            _fail(part, type(error).__name__)  # not its message, which may quote what was sent
            raise


def _fail(span: "Span", kind: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
