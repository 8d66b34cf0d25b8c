"""The proxy does to connections what its faults say, to those that are open as to new ones."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.tcp_proxy import HOST, Fault, Proxy, ProxyProcess, Switched


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
        except ConnectionError:
            pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(params=[Proxy, ProxyProcess])
def proxy(request: pytest.FixtureRequest) -> Iterator[Switched]:
    """In front of a server that answers with what it is sent."""
    with Server((HOST, 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        with request.param(server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()


def connect(proxy: Switched) -> socket.socket:
    connection = socket.create_connection((HOST, proxy.port), timeout=30)
    connection.sendall(b"hello")
    assert receive(connection, 5) == b"hello"
    return connection


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def is_silent(connection: socket.socket, seconds: float = 0.2) -> bool:
    connection.settimeout(seconds)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(30)
    return False


def test_without_a_fault_everything_passes_and_ends(proxy: Switched) -> None:
    with connect(proxy) as connection:
        sent = bytes(range(256)) * 4000
        threading.Thread(target=connection.sendall, args=[sent]).start()
        assert receive(connection, len(sent)) == sent
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_latency_adds_up_over_both_ways_and_not_over_pieces(proxy: Switched) -> None:
    with connect(proxy) as connection, proxy.fault(Fault(request_seconds=0.2, reply_seconds=0.1)):
        started = time.monotonic()
        for piece in (b"a", b"b", b"c", b"d"):
            connection.sendall(piece)
            time.sleep(0.02)
        assert receive(connection, 4) == b"abcd"
        assert 0.3 <= time.monotonic() - started < 5


@pytest.mark.parametrize("fault", [Fault(request_bytes=0), Fault(reply_bytes=0)], ids=["requests", "replies"])
def test_what_was_held_back_in_silence_comes_when_it_ends(proxy: Switched, fault: Fault) -> None:
    with connect(proxy) as connection:
        with proxy.fault(fault):
            connection.sendall(b"held")
            assert is_silent(connection)
            with socket.create_connection((HOST, proxy.port), timeout=30) as another:
                another.sendall(b"held")
                assert is_silent(another), "a new connection is taken, and never answered"
        assert receive(connection, 4) == b"held"


def test_requests_in_silence_do_not_arrive_and_those_of_lost_replies_do() -> None:
    arrived: list[bytes] = []

    class Noting(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(100):
                arrived.append(data)

    with Server((HOST, 0), Noting) as server, Proxy(server.server_address[1]) as proxy:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        with socket.create_connection((HOST, proxy.port)) as connection:
            for fault, data in ((Fault(request_bytes=0), b"1"), (Fault(reply_bytes=0), b"2")):
                with proxy.fault(fault):
                    connection.sendall(data)
                    assert is_silent(connection)
                    assert (data in b"".join(arrived)) == (fault.request_bytes > 0)
        server.shutdown()


@pytest.mark.parametrize("connections", ["reset", "refused"])
def test_open_connections_are_reset_and_new_ones_get_nowhere(proxy: Switched, connections: str) -> None:
    with connect(proxy) as connection, connect(proxy) as another:
        with proxy.fault(Fault(connections=connections)):  # type: ignore[arg-type]
            for each in (connection, another):
                with pytest.raises(ConnectionResetError):
                    each.recv(1)
            with (
                pytest.raises(ConnectionRefusedError if connections == "refused" else ConnectionResetError),
                socket.create_connection((HOST, proxy.port), timeout=30) as third,
            ):
                third.recv(1)
        connect(proxy).close()


@pytest.mark.parametrize("then", ["silence", "reset"])
def test_a_reply_is_cut_in_the_middle(proxy: Switched, then: str) -> None:
    with connect(proxy) as connection:
        with proxy.fault(Fault(reply_bytes=3, then=then)):  # type: ignore[arg-type]
            connection.sendall(b"abcdef")
            assert receive(connection, 3) == b"abc"
            if then == "reset":
                with pytest.raises(ConnectionResetError):
                    connection.recv(1)
                return
            assert is_silent(connection)
        assert receive(connection, 3) == b"def"


def test_a_reply_comes_byte_by_byte(proxy: Switched) -> None:
    with connect(proxy) as connection, proxy.fault(Fault(piece_bytes=1, bytes_per_second=100)):
        connection.sendall(b"abcdefghij")
        first = connection.recv(100)
        assert len(first) < 10
        assert first + receive(connection, 10 - len(first)) == b"abcdefghij"


def test_bandwidth_is_bounded(proxy: Switched) -> None:
    with connect(proxy) as connection, proxy.fault(Fault(piece_bytes=100, bytes_per_second=1000)):
        started = time.monotonic()
        connection.sendall(b"x" * 500)
        assert receive(connection, 500) == b"x" * 500
        assert time.monotonic() - started > 0.4


def test_a_server_that_is_gone_is_a_reset() -> None:
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))
        with (
            Proxy(nobody.getsockname()[1]) as proxy,
            pytest.raises(ConnectionResetError),
            socket.create_connection((HOST, proxy.port), timeout=30) as connection,
        ):
            connection.recv(1)
