import pytest

from benchmarks.load import wire

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\nx-request-id: 1\r\n\r\n{"a": 1}'


@pytest.mark.parametrize("end", range(len(ANSWER.partition(b"\r\n\r\n")[0]) + 4))
def test_an_incomplete_head_has_no_size(end):
    assert wire.answer_size(ANSWER[:end]) == 0


@pytest.mark.parametrize("rest", [b"", b"HTTP/1.1 500 Oh\r\n"])
def test_size_is_head_and_body_whatever_follows(rest):
    assert wire.answer_size(ANSWER + rest) == len(ANSWER)
    assert wire.answer_size(ANSWER[:-3]) == len(ANSWER)


def test_status_and_body_of_a_whole_answer():
    assert wire.status(ANSWER) == 200
    assert wire.body(ANSWER) == b'{"a": 1}'


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nx-content-length: 8\r\n\r\n", b"+PONG\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
)
def test_an_answer_whose_end_cannot_be_told_is_refused(answer):
    with pytest.raises(ValueError, match="answer"):
        wire.answer_size(answer)


def test_requests_hold_the_length_of_their_body_in_bytes():
    body = "ü".encode()
    assert wire.post(b"/x", wire.headers("h:1"), body) == (
        b"POST /x HTTP/1.1\r\nhost: h:1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n" + body
    )
    assert wire.get(b"/x?k=2", wire.headers("h:1")) == b"GET /x?k=2 HTTP/1.1\r\nhost: h:1\r\n\r\n"


def test_a_key_goes_with_every_request():
    headers = wire.headers("h:1", "secret")
    assert wire.get(b"/x", headers) == b"GET /x HTTP/1.1\r\nhost: h:1\r\nauthorization: Bearer secret\r\n\r\n"
    assert b"\r\nauthorization: Bearer secret\r\n" in wire.post(b"/x", headers, b"{}")
