"""HTTP/1.1 as far as this client needs it: requests are bytes, of an answer only status and length are read.

An HTTP library costs more processor time a request than the service does; client and service share two cores here.
"""

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


def headers(host: str, key: str = "") -> bytes:
    """The headers that all requests have."""
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    return f"host: {host}\r\n{authorization}".encode()


def get(path: bytes, headers: bytes) -> bytes:
    """A GET request; ``path`` is already quoted."""
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (path, headers)


def post(path: bytes, headers: bytes, body: bytes) -> bytes:
    """A POST request with a JSON body."""
    return b"POST " + path + post_tail(headers, body)


def post_tail(headers: bytes, body: bytes) -> bytes:
    """What follows the path of a POST request: the same bytes for every session that clicks one item."""
    head = b" HTTP/1.1\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (headers, len(body)) + body


def answer_size(data: bytes) -> int:
    """Bytes of the whole answer that ``data`` begins with; 0 while its head is incomplete.

    Raises ValueError on what is not HTTP/1.1 or does not say its length.
    """
    end = data.find(_HEAD_END)
    if end < 0:
        return 0
    if not data.startswith(b"HTTP/1.1 "):
        raise ValueError(f"not an HTTP/1.1 answer: {data[:40]!r}")
    head = data[: end + 2].lower()
    at = head.find(_LENGTH)
    if at < 0:
        raise ValueError(f"an answer without content-length: {data[:40]!r}")
    at += len(_LENGTH)
    return end + len(_HEAD_END) + int(head[at : head.index(b"\r", at)])


def status(answer: bytes) -> int:
    """Status code of a whole answer."""
    return int(answer[9:12])


def refused(answer: bytes) -> bool:
    """Whether a whole answer says that the service is overloaded, and when to come back."""
    return answer.startswith(b"HTTP/1.1 503") and b"\r\nretry-after:" in answer[: answer.index(_HEAD_END) + 2].lower()


def body(answer: bytes) -> bytes:
    """Body of a whole answer."""
    return answer[answer.index(_HEAD_END) + len(_HEAD_END) :]
