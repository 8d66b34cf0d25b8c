"""Refusals under overload, over real sockets; a request is held under way by a model that waits."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httptools
import httpx
import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter
from starlette.types import Receive, Scope, Send

from service import overload
from service.app import create_app
from service.overload import Load, Shedding, SheddingProtocol, is_whole
from service.settings import load_settings
from srgnn.catalogue import Top
from srgnn.recommender import Recommender
from srgnn.scorer import DenseScorer
from srgnn.sequence import IntArray

CLICK = (
    b"POST /sessions/s/click HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 17\r\n\r\n{"item_id":"100"}'
)


class WaitingScorer(DenseScorer):
    """Answers when it is let."""

    def __init__(self, num_items: int) -> None:
        super().__init__(num_items)
        self.asked, self.let = threading.Event(), threading.Event()

    def scores(self, sequences: Sequence[IntArray]) -> np.ndarray:
        return np.zeros((len(sequences), self.num_items), np.float32)

    def top_k(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        self.asked.set()
        assert self.let.wait(30)
        return super().top_k(sequences, k, exclude)


@pytest.fixture
def scorer() -> WaitingScorer:
    return WaitingScorer(40)


@pytest.fixture
def client(
    tiny_recommender: Recommender, scorer: WaitingScorer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    monkeypatch.setattr("service.inference.INLINE_SCORES", 0)  # in the thread: the event loop has to go on
    parts = tiny_recommender.vocabulary, tiny_recommender.rules, scorer, tiny_recommender.fallback
    settings = load_settings(max_under_way=1, burst=0, deadline_ms=30_000)
    app = create_app(settings, recommender=Recommender(*parts, version="waiting"))
    config = uvicorn.Config(app, port=0, http=SheddingProtocol, ws="none", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client
    scorer.let.set()
    server.should_exit = True
    thread.join()


@contextmanager
def under_way(client: httpx.Client, scorer: WaitingScorer) -> Iterator[None]:
    """One request waits for the model; it is answered in full at the end."""
    answers: list[httpx.Response] = []
    url = f"{client.base_url}/sessions/first/click"
    thread = threading.Thread(target=lambda: answers.append(httpx.post(url, json={"item_id": "100"}, timeout=30)))
    thread.start()
    assert scorer.asked.wait(30)
    try:
        yield
    finally:
        scorer.let.set()
        thread.join()
    assert [answer.status_code for answer in answers] == [200]


def exchange(client: httpx.Client, *pieces: bytes) -> bytes:
    """What comes back first for a request sent in pieces."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.05)
        return connection.recv(65536)


def test_what_there_is_no_time_for_is_refused_and_told_when_to_come_back(
    client: httpx.Client, scorer: WaitingScorer
) -> None:
    with under_way(client, scorer):
        for _ in range(3):
            refused = client.post("/sessions/s/click", json={"item_id": "100"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.headers["content-type"] == "application/problem+json"
            assert "SRGNN_MAX_UNDER_WAY" in refused.json()["detail"]
        assert client.get("/sessions/s/recommendations").status_code == 503
        assert client.post("/recommendations", json={"histories": [["100"]]}).status_code == 503
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
        assert "srgnn_refused_requests_total 5.0" in client.get("/metrics").text
    assert client.post("/sessions/s/click", json={"item_id": "100"}).json()["clicks"] == 1, (
        "no refused click was stored"
    )


@pytest.mark.parametrize(
    "pieces",
    [
        [CLICK],
        [CLICK[:30], CLICK[30:]],
        [CLICK[:-5], CLICK[-5:]],
        [CLICK.replace(b"Host: x", b"Host: x\r\nConnection: close")],
        [
            CLICK.replace(b"Content-Length: 17", b"Transfer-Encoding: chunked").replace(b"{", b"11\r\n{")
            + b"\r\n0\r\n\r\n"
        ],
    ],
    ids=["whole", "split head", "split body", "closing", "chunked"],
)
def test_however_it_arrives_it_is_refused(client: httpx.Client, scorer: WaitingScorer, pieces: list[bytes]) -> None:
    with under_way(client, scorer):
        assert exchange(client, *pieces).startswith(b"HTTP/1.1 503 ")


def test_a_refused_connection_goes_on(client: httpx.Client, scorer: WaitingScorer) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        with under_way(client, scorer):
            for _ in range(2):
                connection.sendall(CLICK)
                assert connection.recv(65536).startswith(b"HTTP/1.1 503 ")
        connection.sendall(CLICK)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_body_still_on_its_way_holds_no_place(client: httpx.Client, scorer: WaitingScorer) -> None:
    scorer.let.set()
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as slow:
        slow.sendall(CLICK[:-5])
        assert client.post("/sessions/s/click", json={"item_id": "100"}).status_code == 200
        slow.sendall(CLICK[-5:])
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_of_those_that_arrive_together_no_more_are_parsed_than_may_begin(
    client: httpx.Client, scorer: WaitingScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer.let.set()
    handle, parsed, blocked = Shedding.__call__, [], threading.Event()

    async def watched(self: Shedding, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/livez":
            blocked.set()
            time.sleep(0.5)  # the event loop stands still: what arrives meanwhile arrives together
        parsed.append(scope["path"])
        await handle(self, scope, receive, send)

    monkeypatch.setattr(Shedding, "__call__", watched)
    address = client.base_url.host, client.base_url.port or 80
    connections = [socket.create_connection(address, timeout=10) for _ in range(6)]
    health = threading.Thread(target=lambda: client.get("/livez"))
    health.start()
    assert blocked.wait(10)
    for connection in connections:
        connection.sendall(CLICK)
    statuses = [connection.recv(65536).split()[1] for connection in connections]
    health.join()
    for connection in connections:
        connection.close()
    assert sorted(statuses) == [b"200"] + [b"503"] * 5
    assert sorted(parsed) == ["/livez", "/sessions/s/click"]


def test_those_let_in_together_use_the_burst_up() -> None:
    async def let_in(load: Load, tries: int) -> int:
        await asyncio.sleep(0)  # the next turn
        return sum(load.lets_in() for _ in range(tries))

    async def scenario() -> list[int]:
        load = Load(3, 2, Counter("refused", "", registry=None))
        found = [await let_in(load, 9), await let_in(load, 9)]  # none of them begins
        entered(load, 2)
        found.append(await let_in(load, 9))
        entered(load, 2)  # one more than the limit
        found.append(await let_in(load, 9))
        leave(load, 4)
        found.append(await let_in(load, 9))
        return found

    assert asyncio.run(scenario()) == [3 + 2, 3 + 2, 3 + 2 - 2, 3 + 2 - 4, 3 + 2]


def entered(load: Load, tries: int) -> int:
    """How many of so many more requests are not refused; none of them ends."""
    before = load._under_way
    for _ in range(tries):
        if not load.full:
            load.__enter__()
    return load._under_way - before


def leave(load: Load, number: int) -> None:
    for _ in range(number):
        load.__exit__()


def test_a_burst_is_taken_and_a_lasting_overload_is_not() -> None:
    load = Load(3, 10, Counter("refused", "", registry=None))
    assert entered(load, 50) == 3 + 10
    leave(load, 2)  # still far beyond the limit
    assert entered(load, 50) == 1, "room for one again, with two answers"
    leave(load, 9)
    assert entered(load, 50) == 4, "as many as nine answers made room for"
    let_in = 0
    for _ in range(1000):
        leave(load, 1)
        let_in += entered(load, 3)  # three times what is answered
    assert let_in == 1000 - 4, "as many as are answered, once the seven are three again"


def test_below_the_limit_no_burst_is_needed_and_its_room_does_not_grow() -> None:
    load = Load(3, 2, Counter("refused", "", registry=None))
    for _ in range(20):
        assert entered(load, 3) == 3
        leave(load, 3)
    assert entered(load, 50) == 3 + 2


def test_one_line_a_second_tells_how_many_were_refused(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, overload.logger.name)
    now = 100.0
    monkeypatch.setattr(overload.time, "monotonic", lambda: now)
    load = Load(5, 0, Counter("refused", "", registry=None))
    for seconds in (0.0, 0.1, 0.2, 1.1):
        now = 100 + seconds
        load.refuse()
    assert [record.fields["refused"] for record in caplog.records] == [1, 3]  # type: ignore[attr-defined]


class Parsed:
    """What httptools makes of bytes."""

    def __init__(self, data: bytes) -> None:
        self.whole = self.begun = 0
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.keeps = parser.should_keep_alive()

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_message_complete(self) -> None:
        self.whole += 1


HEADERS = [
    b"Content-Length: 4", b"content-length:4", b"Content-Length: 5", b"Content-Length: 4, 4",
    b"Transfer-Encoding: chunked", b"Connection: keep-alive", b"Connection: close", b"connection: upgrade",
    b"Upgrade: h2c", b"Expect: 100-continue", b"Accept: */*", b"X: \r\n Content-Length: 4",
]  # fmt: skip


@given(
    method=st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE"]),
    path=st.sampled_from([b"/sessions/s", b"/recommendations", b"/sessions/s/click?x=1", b"/livez", b"/admin/model"]),
    version=st.sampled_from([b"1.1", b"1.0"]),
    headers=st.lists(st.sampled_from(HEADERS), max_size=4),
    body=st.sampled_from([b"", b"{}  ", b"{}   ", b"4\r\nabcd\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]),
)
def test_only_what_the_parser_finds_to_be_exactly_one_request_is_refused_unparsed(
    method: bytes, path: bytes, version: bytes, headers: list[bytes], body: bytes
) -> None:
    lines = [b"%b %b HTTP/%b" % (method, path, version), b"Host: x", *headers]
    data = b"\r\n".join([*lines, b"", body])
    if is_whole(data):
        parsed = Parsed(data)
        assert (parsed.begun, parsed.whole, parsed.keeps) == (1, 1, True)
        assert path.decode().startswith(overload.LIMITED_PATHS)
    elif is_whole(data + b"\r\n"):
        pytest.fail("a request that is not at its end")


def test_what_clients_usually_send_is_whole() -> None:
    assert is_whole(CLICK)
    assert is_whole(b"GET /sessions/s/recommendations?k=5 HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n")
    assert not is_whole(CLICK + CLICK)
    assert not is_whole(CLICK[:-1])
