"""Each bound on a connection, found by a real socket that goes past it."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from http.client import HTTPResponse

import httpx
import pytest
from fastapi import FastAPI

from service import connections
from service.app import create_app
from service.connections import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED, BoundedHttp
from service.headers import HEADERS
from service.settings import load_settings
from srgnn.recommender import Recommender

Running = Callable[[FastAPI], AbstractContextManager[str]]
CLICK = b"POST /sessions/s/click HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"item_id": "100"}'
GOOD = CLICK + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = CLICK + b"Transfer-Encoding: chunked\r\n\r\n"


class Service:
    """A running one, and raw connections to it."""

    def __init__(self, url: str) -> None:
        self.url = httpx.URL(url)

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.create_connection((self.url.host, self.url.port), timeout=30) as connection:
            yield connection

    def answer(self, *parts: bytes) -> bytes:
        """Everything that comes back until the other side closes."""
        with self.connected() as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.1)  # or they would arrive as one
            return rest(connection)

    def closed(self, reason: str) -> float:
        found = [
            line
            for line in httpx.get(f"{self.url}/metrics").text.splitlines()
            if f'closed_total{{reason="{reason}"' in line
        ]
        return float(found[0].split()[-1]) if found else 0.0


def ask(connection: socket.socket, request: bytes) -> tuple[int, bytes]:
    """Status and body of one answer; the connection stays open."""
    connection.sendall(request)
    response = HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def rest(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


def problem(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    for name, value in HEADERS:
        assert name + b": " + value in head
    content: dict[str, object] = json.loads(body)
    assert answer.startswith(b"HTTP/1.1 %d " % content["status"])
    return content


@pytest.fixture
def service(running: Running, tiny_recommender: Recommender) -> Iterator[Service]:
    settings = load_settings(
        max_connections=20, transfer_seconds=1, max_body_bytes=10_000, deadline_ms=30_000, keys_file=None
    )
    with running(create_app(settings, recommender=tiny_recommender)) as url:
        yield Service(url)


def test_a_connection_within_its_bounds_is_served_as_ever(service: Service) -> None:
    with service.connected() as connection:
        for clicks in range(1, 4):
            status, body = ask(connection, GOOD)
            assert status == 200
            assert b'"clicks":%d' % clicks in body


def test_a_head_up_to_the_limit_passes_and_a_larger_one_is_refused_whole_or_in_parts(service: Service) -> None:
    def request(size: int) -> bytes:
        start, end = b"GET /livez HTTP/1.1\r\nConnection: close\r\nX-Filler: ", b"\r\n\r\n"
        return start + b"x" * (size - len(start) - len(end)) + end

    assert service.answer(request(MAX_HEAD_BYTES)).startswith(b"HTTP/1.1 200")
    assert problem(service.answer(request(MAX_HEAD_BYTES + 100)))["status"] == 431
    answer = service.answer(request(50_000)[: MAX_HEAD_BYTES - 1000], request(50_000)[MAX_HEAD_BYTES - 1000 :])
    assert problem(answer)["status"] == 431
    large = request(1_000_000)
    with service.connected() as connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        go_on(connection, large[:5_000].rstrip(b"\r\n"))
    assert service.closed("head_too_large") == 3


def test_an_endless_address_is_refused(service: Service) -> None:
    answer = service.answer(b"GET /" + b"x" * (MAX_HEAD_BYTES + 1))
    assert problem(answer)["status"] == 431


@pytest.mark.parametrize(("more", "status"), [(0, b"200"), (1, b"431")])
def test_headers_are_counted(service: Service, more: int, status: bytes) -> None:
    lines = [b"A: b"] * (MAX_HEADERS - 1 + more)
    answer = service.answer(b"\r\n".join([b"GET /livez HTTP/1.1", b"Connection: close", *lines, b"", b""]))
    assert answer.split()[1] == status


def test_a_head_that_is_not_finished_in_time_is_refused(service: Service) -> None:
    with service.connected() as connection:
        started = time.monotonic()
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        assert problem(rest(connection))["status"] == 408
        assert time.monotonic() - started >= 0.8
    assert service.closed("too_slow") == 1


def test_a_body_that_comes_byte_by_byte_is_refused_and_not_stored(service: Service) -> None:
    with service.connected() as connection:
        connection.sendall(GOOD[: -len(BODY)])
        with suppress(OSError):
            for byte in BODY[:-1]:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
    assert httpx.get(f"{service.url}/sessions/s").json()["clicks"] == 0
    assert service.closed("too_slow") == 1


@pytest.mark.parametrize("first", [b"", GOOD], ids=["new", "used"])
@pytest.mark.parametrize("drops", [b"", b"\r\n"], ids=["silent", "empty lines"])
def test_a_connection_that_asks_nothing_is_closed(service: Service, first: bytes, drops: bytes) -> None:
    """uvicorn closes an idle one only after its first answer, and only while not even an empty line comes."""
    with service.connected() as connection:
        if first:
            assert ask(connection, first)[0] == 200
        connection.settimeout(0.1)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                connection.sendall(drops)
                assert connection.recv(1) == b"", "an answer to nothing"
                return
            except TimeoutError:
                continue
            except OSError:
                return
    pytest.fail("it is still open")


def test_a_client_that_takes_no_answers_is_cut_off(service: Service) -> None:
    """Its answers would wait in this process, and a task with each connection."""
    with service.connected() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.5)
        request = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
        deadline = time.monotonic() + 20
        while not service.closed("too_slow"):
            assert time.monotonic() < deadline
            with suppress(OSError):
                connection.sendall(request)
            time.sleep(0.2)


def hang_up(service: Service) -> None:
    for _ in range(20):
        with service.connected() as connection:
            connection.sendall(GOOD * 4)


def take_nothing(service: Service) -> None:
    with service.connected() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 4)
        deadline = time.monotonic() + 20
        while not service.closed("too_slow"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("end", [hang_up, take_nothing])
def test_an_answer_to_a_pipeline_that_has_ended_is_no_error(
    service: Service, end: Callable[[Service], None], caplog: pytest.LogCaptureFixture
) -> None:
    """uvicorn would tell only the last of the requests, while the first one is being answered."""
    end(service)
    assert service.answer(GOOD.replace(b"Host: x", b"Connection: close")).startswith(b"HTTP/1.1 200")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.fixture
def little_buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes few bytes for a client, the rest waits in the process."""
    made = BoundedHttp.connection_made

    def connection_made(self: BoundedHttp, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made(self, transport)

    monkeypatch.setattr(BoundedHttp, "connection_made", connection_made)


@pytest.mark.usefixtures("little_buffered")
def test_a_client_that_does_not_take_its_refusal_is_cut_off(service: Service) -> None:
    """Its connection waits for that to close: another refusal behind it would wait as well."""
    whole = len(httpx.get(f"{service.url}/openapi.json").content)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((service.url.host, service.url.port))
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\n\r\n")
        time.sleep(0.2)
        connection.sendall(b"GET /" + b"x" * (MAX_HEAD_BYTES + 1))
        deadline = time.monotonic() + 20
        while not service.closed("too_slow"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert service.closed("head_too_large") == 1
        assert len(rest(connection)) < whole


def test_what_came_with_the_end_of_other_requests_is_not_counted_as_the_next_head(service: Service) -> None:
    body = BODY + b" " * 9_000
    earlier = CLICK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answer = service.answer(earlier * 4 + b"GET /livez HTTP/1.1\r\n", b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 5


def test_a_large_head_that_begins_with_the_end_of_other_requests_is_refused(service: Service) -> None:
    head = b"GET /livez HTTP/1.1\r\nConnection: close\r\nX-Filler: " + b"x" * MAX_HEAD_BYTES
    assert service.answer(GOOD + head, b"\r\n\r\n").count(b"HTTP/1.1 200") == 1
    assert service.closed("head_too_large") == 1


def test_a_pipeline_is_bounded(service: Service) -> None:
    """One packet holds thousands of small requests, each of which would be an object of two kilobytes."""
    few = b"GET /livez HTTP/1.1\r\n\r\n" * MAX_PIPELINED
    assert service.answer(few + b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n").count(b"HTTP/1.1 200") == 9
    assert service.answer(b"GET /livez HTTP/1.1\r\n\r\n" * 1000).count(b"HTTP/1.1 200") <= 1
    assert service.closed("pipelined") == 1


def go_on(connection: socket.socket, data: bytes) -> None:
    for _ in range(200):
        connection.sendall(data)
        time.sleep(0.002)


@pytest.mark.parametrize(
    "endless",
    [b"1\r\nx\r\n" * 1000, b"0\r\n" + b"Trailer: x\r\n" * 1000, b"0\r\nTrailer: " + b"x" * 10_000],
    ids=["chunks", "trailers", "one trailer"],
)
def test_an_endless_request_is_cut_off(service: Service, endless: bytes) -> None:
    with service.connected() as connection:
        connection.sendall(CHUNKED + endless)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            go_on(connection, endless.removeprefix(b"0\r\n"))


def test_connections_past_the_limit_are_told_and_those_before_go_on(service: Service) -> None:
    with ExitStack() as stack:
        taken = [stack.enter_context(service.connected()) for _ in range(20)]
        for connection in taken:
            assert ask(connection, GOOD)[0] == 200
        with service.connected() as one_more:
            answer = rest(one_more)
        assert problem(answer)["status"] == 503
        assert b"\r\nretry-after: 1\r\n" in answer
        assert ask(taken[0], GOOD)[0] == 200
    deadline = time.monotonic() + 20
    while not service.answer(GOOD.replace(b"Host: x", b"Connection: close")).startswith(b"HTTP/1.1 200"):
        assert time.monotonic() < deadline
    assert service.closed("too_many") >= 1


@pytest.mark.parametrize("pause", [0, 0.3], ids=["at once", "later"])
def test_a_connection_past_the_limit_may_send_its_request_and_is_told(service: Service, pause: float) -> None:
    """Closed with something unread, a connection is reset: the client's own request would take the answer from it."""
    body = BODY + b" " * 9_000
    head = CLICK + b"Content-Length: %d\r\n\r\n" % len(body)
    with ExitStack() as stack:
        for _ in range(20):
            assert ask(stack.enter_context(service.connected()), GOOD)[0] == 200
        for _ in range(10):
            with service.connected() as connection:
                for part in (head, body[:5_000], body[5_000:]):
                    time.sleep(pause / 3)
                    connection.sendall(part)
                response = HTTPResponse(connection)
                response.begin()
                assert (response.status, response.getheader("retry-after")) == (503, "1")
                assert json.loads(response.read())["status"] == 503
                assert connection.recv(1) == b"", "the end, and no reset"


@contextmanager
def one_too_many(service: Service) -> Iterator[socket.socket]:
    with ExitStack() as stack:
        for _ in range(20):
            assert ask(stack.enter_context(service.connected()), GOOD)[0] == 200
        connection = stack.enter_context(service.connected())
        assert connection.recv(12) == b"HTTP/1.1 503"
        yield connection


def test_a_refused_client_that_goes_on_for_ever_is_cut_off(service: Service) -> None:
    with one_too_many(service) as connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        go_on(connection, b"x" * 1_000)
    assert (service.closed("too_many"), service.closed("too_slow")) == (1, 0)


def test_a_refused_client_that_does_not_close_is_cut_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.1)
    with one_too_many(service) as connection:
        rest(connection)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            go_on(connection, b"x")
    assert (service.closed("too_many"), service.closed("too_slow")) == (1, 0)


def test_refused_clients_that_do_not_close_are_bounded(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_LINGERING", 1)
    with one_too_many(service) as first, service.connected() as second:
        assert problem(rest(second))["status"] == 503
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            go_on(second, b"x")
        first.sendall(b"x")
        assert problem(b"HTTP/1.1 503" + rest(first))["status"] == 503


def test_nothing_is_written_behind_a_refusal(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The application, which has been given the request, would answer it too."""
    request = CHUNKED.replace(b"Host: x", b"Expect: 100-continue") + b"nonsense\r\n"
    assert problem(service.answer(request))["status"] == 400
    assert service.answer(GOOD.replace(b"Host: x", b"Connection: close")).startswith(b"HTTP/1.1 200")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_stop_does_not_wait_for_refused_clients(running: Running, tiny_recommender: Recommender) -> None:
    """Left open, their connections would keep the process from ending."""
    with ExitStack() as stack:
        settings = load_settings(max_connections=20, transfer_seconds=3600, keys_file=None)
        with running(create_app(settings, recommender=tiny_recommender)) as url:
            stack.enter_context(one_too_many(Service(url)))
            assert len(BoundedHttp._lingering) == 1
        assert not BoundedHttp._lingering


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01 this is TLS\r\n\r\n",
        b"GET /livez HTTP/3.7\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\n\r\n",
        CLICK + b"Content-Length: -1\r\n\r\n",
        CLICK + b"Content-Length: 99999999999999999999999\r\n\r\n",
        CLICK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        CLICK + b"Content-Length: 18\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"nonsense\r\n",
        b"GET /livez HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_problem(service: Service, request_: bytes) -> None:
    """Two lengths of one body are how requests are smuggled past a proxy."""
    assert problem(service.answer(request_))["status"] == 400
    assert service.answer(GOOD.replace(b"Host: x", b"Connection: close")).startswith(b"HTTP/1.1 200")


def test_a_client_that_is_only_refused_keeps_its_connection(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under overload its requests are answered unparsed, so nothing of them is seen to begin or end."""
    monkeypatch.setattr("service.overload.Load.full", True)
    with service.connected() as connection:
        for n in range(600):
            assert ask(connection, GOOD)[0] == 503
            time.sleep(0.005 if n % 10 else 0.02)
        monkeypatch.setattr("service.overload.Load.full", False)
        assert ask(connection, GOOD)[0] == 200
