"""A service that answers what a test tells it to, over real sockets."""

import json
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from benchmarks.load.measure import Target

Respond = Callable[[bytes], bytes]
"""A whole request -> the whole answer; empty closes the connection."""


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


def recommendation(**fields: Any) -> dict[str, Any]:
    items = [{"item_id": "a", "score": 2.5}, {"item_id": "b", "score": 1.5}]
    return {"items": items, "source": "model", "degraded": None, "clicks": 1, "model": "fake", **fields}


def packed(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


class Shop:
    """Counts the clicks of each session, as the service does."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.sessions: dict[str, list[str]] = {}

    def __call__(self, request: bytes) -> bytes:
        self.requests.append(request)
        body = request.partition(b"\r\n\r\n")[2]
        if request.startswith(b"POST /recommendations "):
            histories = json.loads(body)["histories"]
            return http(packed({"recommendations": [recommendation(clicks=len(each)) for each in histories]}))
        session_id = request.split()[1].split(b"/")[2].decode()
        clicks = self.sessions.setdefault(session_id, [])
        if request.startswith(b"POST"):
            clicks.append(json.loads(body)["item_id"])
        return http(packed({"session_id": session_id, **recommendation(clicks=len(clicks))}))


@contextmanager
def _serving(respond: Respond) -> Iterator[Target]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            received = b""
            while data := self.request.recv(65536):
                received += data
                head, _, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                if b"\r\n\r\n" not in received or (length and len(body) < int(length[1])):
                    continue
                answer, received = respond(received), b""
                if not answer:
                    return
                self.request.sendall(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 512

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Target(*server.server_address, connections=64, check_every=1)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def serving() -> Callable[[Respond], AbstractContextManager[Target]]:
    """``with serving(respond) as target``."""
    return _serving


@pytest.fixture
def shop() -> Shop:
    return Shop()
