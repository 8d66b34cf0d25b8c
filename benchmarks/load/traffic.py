"""When requests are due and what they ask: a corpus' sessions, interleaved as on a live shop.

A session is a queue of one: a click is handed out only when the click before it was answered, because its answer
and its place in the store depend on that one. Its latency counts from when it was due all the same.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from srgnn.errors import InputError
from srgnn.vocabulary import Vocabulary
from training.corpus import Split

from . import wire

KINDS = ("click", "read", "stateless")
STATELESS_BODIES = 2048
"""Distinct histories of stateless calls; made before the clock starts."""


def arrivals(rate: float, seconds: float, *, poisson: bool = False, seed: int = 1) -> npt.NDArray[np.float64]:
    """Seconds after the start at which requests are due: evenly spaced, or at random with the same mean rate."""
    n = max(round(rate * seconds), 1)
    if not poisson:
        return np.arange(n) / rate
    gaps = np.random.default_rng(seed).exponential(1 / rate, n)
    return np.concatenate([[0.0], np.cumsum(gaps)[:-1]])


def parse_mix(text: str) -> dict[str, float]:
    """``click=0.8,read=0.2`` as shares that sum to 1. Raises InputError."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        kind, _, value = part.partition("=")
        if kind not in KINDS or kind in shares:
            raise InputError(f"--mix {text!r}: {kind!r} is not one of {', '.join(KINDS)}, each at most once")
        try:
            shares[kind] = float(value)
        except ValueError:
            raise InputError(f"--mix {text!r}: {value!r} is not a number; expected for example {kind}=0.5") from None
    if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"--mix {text!r}: the shares sum to {sum(shares.values()):g}; expected shares that sum to 1")
    return shares


@dataclass(slots=True)
class Session:
    """One session under replay."""

    id: str
    clicks: Iterator[int]
    """Catalogue rows not handed out yet."""
    left: int
    sent: int = 0
    kept: int = 0
    """Clicks that the service surely keeps."""
    uncertain: bool = False
    """A click failed or was answered without the store: the service may know fewer than were sent."""
    busy: bool = False
    """A click is under way: the next one waits in ``held``."""
    held: "deque[Call]" = field(default_factory=deque)


@dataclass(slots=True)
class Call:
    """One request: ``due`` is on the monotonic clock, as is ``sent``, later where the client was late, an earlier click
    of the session had no answer or no connection was free; ``position``: the clicks its answer must at least count."""

    index: int
    kind: str
    due: float
    request: bytes
    session: Session | None = None
    position: int = 0
    sent: float = 0.0


class Traffic:
    """Requests of the given kinds, over sessions of ``split`` in their order, again and again with fresh ids.

    ``live`` sessions are open at a time and take turns, so two clicks of one session are ``live / rate`` seconds apart.
    """

    def __init__(
        self,
        split: Split,
        vocabulary: Vocabulary,
        *,
        host: str,
        run: str,
        k: int,
        live: int,
        seed: int = 1,
        key: str = "",
    ):
        self._split = split
        self._seed = seed
        self._ids = vocabulary.ids
        self._headers = wire.headers(host, key)
        self._run = run
        self._k = k
        self._numbers = count()
        self._live = deque(self._open() for _ in range(live))
        self._known: deque[Session] = deque(maxlen=live)  # with a click: fit to be read
        self._tails: dict[int, bytes] = {}
        self._histories = _histories(split, STATELESS_BODIES, seed)
        self._stateless: list[tuple[bytes, int]] = []

    def prepare(self, mix: Mapping[str, float]) -> None:
        """Make what is slow to make before the clock starts."""
        if mix.get("stateless"):
            self._stateless = [(self.bulk_request([rows]), len(rows)) for rows in self._histories]

    def call(self, kind: str, index: int, due: float) -> Call:
        """The next request of that kind; a click where no session can be read yet."""
        if kind == "stateless":
            request, length = self._stateless[index % len(self._stateless)]
            return Call(index, kind, due, request, None, length)
        if kind == "read" and self._known:
            session = self._known[0]
            self._known.rotate(1)
            path = f"/sessions/{session.id}/recommendations?k={self._k}".encode()
            return Call(index, kind, due, wire.get(path, self._headers), session, session.kept)
        return self._click(index, due)

    def start(self, call: Call) -> bool:
        """Whether the call may go out now; a click whose session waits for an answer is held instead."""
        session = call.session
        if session is None or call.kind != "click":
            return True
        if session.busy:
            session.held.append(call)
            return False
        session.busy = True
        return True

    def finish(self, call: Call, kept: bool) -> Call | None:
        """Note the end of a call, and whether its click was surely kept; returns the click that it held back."""
        session = call.session
        if session is None or call.kind != "click":
            return None
        if kept:
            if not session.kept:
                self._known.append(session)
            session.kept += 1
        else:
            session.uncertain = True
        if session.held:
            return session.held.popleft()
        session.busy = False
        return None

    def bulk_requests(self, size: int, number: int) -> list[bytes]:
        """``number`` requests for ``size`` histories each, drawn anew for each."""
        histories = _histories(self._split, size * number, self._seed)
        return [self.bulk_request(histories[start : start + size]) for start in range(0, len(histories), size)]

    def bulk_request(self, histories: list[list[int]]) -> bytes:
        """POST /recommendations for these histories of catalogue rows."""
        named = [[self._ids[row] for row in rows] for rows in histories]
        return wire.post(b"/recommendations", self._headers, _encode({"histories": named, "k": self._k}))

    def _click(self, index: int, due: float) -> Call:
        session = self._live.popleft()
        row = next(session.clicks)
        session.sent += 1
        session.left -= 1
        self._live.append(session if session.left else self._open())
        tail = self._tails.get(row)
        if tail is None:
            tail = wire.post_tail(self._headers, _encode({"item_id": self._ids[row], "k": self._k}))
            self._tails[row] = tail
        return Call(index, "click", due, f"POST /sessions/{session.id}/click".encode() + tail, session, session.sent)

    def _open(self) -> Session:
        number = next(self._numbers)
        rows = self._split.session(number % self._split.num_sessions).tolist()
        return Session(f"{self._run}-{number}", iter(rows), len(rows))


def _histories(split: Split, number: int, seed: int) -> list[list[int]]:
    """Prefixes of random sessions, of 1 click up to all of them."""
    rng = np.random.default_rng(seed)
    sessions = [split.session(int(i)).tolist() for i in rng.integers(0, split.num_sessions, number)]
    return [rows[: int(rng.integers(1, len(rows) + 1))] for rows in sessions]


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
