"""Replay held-out sessions click by click against a running service and judge its answers.

Everything between a shop and the model takes part: HTTP, the session store, encoding, the model. Each
answer to a click is compared with the click that really came next. Order is kept inside a session; sessions
run in parallel.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TextIO
from urllib.parse import quote

import httpx
import numpy as np
import numpy.typing as npt

from srgnn.errors import DataError, InputError
from srgnn.progress import progress
from srgnn.vocabulary import Vocabulary

from . import metrics
from .corpus import Split
from .metrics import FloatArray, IntArray

MAX_FAILED_IN_A_ROW = 25
"""A service that fails so many clicks in a row is not measured any further."""


class Answer(NamedTuple):
    """What came back for one click; ``error`` is empty where an answer came."""

    item_ids: Sequence[str]
    source: str
    degraded: str
    model: str
    latency_ms: float
    error: str


@dataclass(frozen=True)
class Replay:
    """Answers to N clicks, in the order of :class:`training.examples.Examples`."""

    k: int
    session: IntArray
    """[N] index of the session in the split."""
    targets: IntArray
    """[N] catalogue row that was clicked next."""
    rows: IntArray
    """[N, k] catalogue rows of the answer, -1 where it is shorter or names an item outside the corpus."""
    rank: IntArray
    """[N] position of the next click in the answer, k + 1 where it is missing or the call failed."""
    latency_ms: FloatArray
    """[N] round trip of the click, as this client saw it."""
    sources: tuple[str, ...]
    degraded: npt.NDArray[np.bool_]
    errors: tuple[str, ...]
    """Messages of failed clicks."""
    models: tuple[str, ...]
    """Versions that answered; more than one where the service changed its model meanwhile."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The summary that ``srgnn replay`` prints."""
        n, answered = len(self.rank), max(len(self.sources), 1)
        return {
            "n": n,
            "sessions": len(np.unique(self.session)),
            f"recall@{self.k}": metrics.recall_at(self.rank, self.k),
            f"mrr@{self.k}": metrics.mrr_at(self.rank, self.k),
            "latency_ms": metrics.percentiles(self.latency_ms),
            "clicks_per_second": round(n / max(self.seconds, 1e-9), 1),
            "seconds": round(self.seconds, 3),
            "sources": {name: count / answered for name, count in sorted(Counter(self.sources).items())},
            "degraded": int(self.degraded.sum()),
            "errors": len(self.errors),
            "models": list(self.models),
        }


def replay(
    split: Split,
    vocabulary: Vocabulary,
    client: httpx.Client,
    *,
    k: int = 20,
    limit: int | None = None,
    concurrency: int = 4,
    shown: bool = True,
) -> Replay:
    """Send every click but the last of the first ``limit`` sessions of two clicks or more.

    ``client`` carries base URL and timeout. Session ids are new in every run and are forgotten afterwards.
    Raises InputError where the service is out of reach or keeps refusing, DataError where there is nothing
    to replay.
    """
    chosen = np.flatnonzero(np.diff(split.offsets) > 1)[:limit]
    if not len(chosen):
        raise DataError("the split holds no session of two clicks or more: nothing to replay")
    check_alive(client)
    sessions = [split.session(int(index)) for index in chosen]
    run = uuid.uuid4().hex
    started = time.monotonic()
    answers: list[Answer] = []
    with progress("replay", sum(map(len, sessions)) - len(sessions), shown=shown) as advance:
        for found in _in_parallel(client, vocabulary, sessions, run, k, concurrency):
            answers += found
            advance(len(found))
            _stop_if_hopeless(answers)
    seconds = time.monotonic() - started
    targets = np.concatenate([session[1:] for session in sessions])
    session = np.repeat(chosen, [len(session) - 1 for session in sessions])
    return _collect(answers, vocabulary, session, targets, k, seconds)


def read_key(file: TextIO) -> str:
    """The API key that a file holds: an option would be seen in the list of processes. Raises InputError."""
    words = file.read().split()
    if len(words) != 1 or not words[0].isascii():
        raise InputError(f"{file.name} holds {len(words)} words: expected one API key, as `srgnn keys` prints it")
    return words[0]


def check_alive(client: httpx.Client) -> None:
    """Raise InputError unless the service at the client's base URL says it is alive."""
    where = f"service at {client.base_url}"
    try:
        response = client.get("/livez")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(
            f"{where} is out of reach ({_reason(error)}): start it with `srgnn serve`, or correct --url"
        ) from error
    if response.status_code != httpx.codes.OK:
        raise InputError(f"{where} answers {_problem(response)} to GET /livez: expected 200; correct --url")


def _in_parallel(
    client: httpx.Client,
    vocabulary: Vocabulary,
    sessions: Sequence[IntArray],
    run: str,
    k: int,
    concurrency: int,
) -> Iterator[list[Answer]]:
    """Answers of each session, in the order of ``sessions``; only a few sessions are ahead of the reader."""
    with ThreadPoolExecutor(concurrency) as pool:
        waiting: list[Future[list[Answer]]] = []
        numbered = enumerate(sessions)
        try:
            while True:
                for number, rows in islice(numbered, 4 * concurrency - len(waiting)):
                    items = [vocabulary.ids[row] for row in rows.tolist()]
                    waiting.append(pool.submit(replay_session, client, f"{run}-{number}", items, k))
                if not waiting:
                    return
                yield waiting.pop(0).result()
        finally:
            pool.shutdown(cancel_futures=True)


def replay_session(client: httpx.Client, session_id: str, items: Sequence[str], k: int) -> list[Answer]:
    """Answers to all clicks of one session but the last, in order; the service is then told to forget it."""
    path = f"/sessions/{quote(session_id, safe='')}"
    answers = [_click(client, path, item, k) for item in items[:-1]]
    with suppress(httpx.HTTPError):  # it would expire by itself, and the answers are complete
        client.delete(path)
    return answers


def _click(client: httpx.Client, path: str, item: str, k: int) -> Answer:
    started = time.perf_counter()
    try:
        response = client.post(f"{path}/click", json={"item_id": item, "k": k})
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:  # faster than a visitor may click: as told, once more
            time.sleep(float(response.headers.get("Retry-After", 1)))
            started = time.perf_counter()
            response = client.post(f"{path}/click", json={"item_id": item, "k": k})
    except httpx.HTTPError as error:
        return _failed(_reason(error), started)
    latency_ms = 1000 * (time.perf_counter() - started)
    if response.status_code != httpx.codes.OK:
        return _failed(_problem(response), started)
    try:
        body = response.json()
        item_ids = [each["item_id"] for each in body["items"]]
        return Answer(item_ids, body["source"], body["degraded"] or "", str(body["model"]), latency_ms, "")
    except (ValueError, KeyError, TypeError) as error:
        return _failed(f"answer is not of the expected form ({error!r}): {response.text[:200]}", started)


def _failed(message: str, started: float) -> Answer:
    return Answer([], "", "", "", 1000 * (time.perf_counter() - started), message)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _problem(response: httpx.Response) -> str:
    """Status and, from a problem+json body, what the service says about it."""
    status = f"{response.status_code} {response.reason_phrase}"
    try:
        problem = response.json()
    except ValueError:
        return status
    said = [str(problem[key]) for key in ("title", "detail") if key in problem] if isinstance(problem, dict) else []
    return f"{status} ({': '.join(said)})" if said else status


def _stop_if_hopeless(answers: Sequence[Answer]) -> None:
    last = answers[-MAX_FAILED_IN_A_ROW:]
    if len(last) == MAX_FAILED_IN_A_ROW and all(answer.error for answer in last):
        raise InputError(
            f"the service failed {MAX_FAILED_IN_A_ROW} clicks in a row, the last with: {last[-1].error}; "
            "look at its log and at GET /readyz, then replay again"
        )


def _collect(
    answers: Sequence[Answer],
    vocabulary: Vocabulary,
    session: IntArray,
    targets: IntArray,
    k: int,
    seconds: float,
) -> Replay:
    rows = np.full((len(answers), k), -1, np.int64)
    for i, answer in enumerate(answers):
        found = [vocabulary.row(item) for item in answer.item_ids[:k]]
        rows[i, : len(found)] = [-1 if row is None else row for row in found]
    good = [answer for answer in answers if not answer.error]
    return Replay(
        k=k,
        session=session,
        targets=targets,
        rows=rows,
        rank=metrics.list_ranks(rows, targets),
        latency_ms=np.array([answer.latency_ms for answer in answers]),
        sources=tuple(answer.source for answer in good),
        degraded=np.array([bool(answer.degraded) for answer in answers]),
        errors=tuple(answer.error for answer in answers if answer.error),
        models=tuple(sorted({answer.model for answer in good})),
        seconds=seconds,
    )
