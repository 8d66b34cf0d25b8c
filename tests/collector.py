"""A real OTLP/HTTP endpoint on a free port: reads what OpenTelemetry's exporter sends, or hangs."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class SentSpan(NamedTuple):
    """One span as it arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: bool
    events: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """``with Collector() as collector``: what came in is in ``spans`` and, undecoded, in ``bodies``."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.spans: list[SentSpan] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.requests = 0
        self._let_go = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.requests += 1
                if hangs:
                    collector._let_go.wait()
                    return
                assert self.path == "/v1/traces", self.path
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.headers.append(dict(self.headers))
                collector.bodies.append(body)
                collector.spans += decoded(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Collector":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go.set()
        self._server.shutdown()
        self._server.server_close()

    def named(self, name: str) -> list[SentSpan]:
        """All spans of that name."""
        return [span for span in self.spans if span.name == name]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what is on its way."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, self.spans
            time.sleep(0.02)


def decoded(body: bytes) -> list[SentSpan]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        SentSpan(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.kind,
            span.status.code == span.status.STATUS_CODE_ERROR,
            len(span.events),
            values(span.attributes),
            values(of_process.resource.attributes),
        )
        for of_process in request.resource_spans
        for scope in of_process.scope_spans
        for span in scope.spans
    ]


def values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
