"""The same work on many chunks in several processes that share one artifact."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from .errors import SRGNNError
from .recommender import Recommender

Chunk = TypeVar("Chunk")
Answer = TypeVar("Answer")

AHEAD = 2
"""Chunks a worker that are read before their turn: enough to keep it busy, few enough for flat memory."""

_recommender: Recommender
"""Of this worker process."""


def answer_in_order(
    answer: Callable[[Recommender, Chunk], Answer],
    chunks: Iterator[Chunk],
    recommender: Recommender,
    artifact: Path | None,
    workers: int,
) -> Iterator[Answer]:
    """``answer(recommender, chunk)`` of every chunk, in their order.

    With several workers each loads ``artifact``, whose large parts are mapped files and so in memory once; ``answer``
    is then a function of a module, or a ``partial`` of one. Raises whatever ``answer`` raises, and SRGNNError where a
    worker died.
    """
    if workers == 1 or artifact is None:
        for chunk in chunks:
            yield answer(recommender, chunk)
        return
    # Not forked: a copy of a process that has used torch's threads may wait for threads it does not have.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _load, (artifact,)) as pool:
        try:
            yield from _in_order(pool, answer, chunks, AHEAD * workers)
        except BrokenProcessPool as error:
            raise SRGNNError(
                f"one of {workers} worker processes died, most likely for want of memory: try fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, answer: Callable[[Recommender, Chunk], Answer], chunks: Iterator[Chunk], ahead: int
) -> Iterator[Answer]:
    waiting: deque[Future[Answer]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_answer, answer, chunk))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _load(artifact: Path) -> None:
    from .artifact import load
    from .garbage import settle
    from .threads import limit_threads

    global _recommender
    limit_threads(1)  # the other cores have workers of their own
    _recommender = load(artifact).recommender
    settle()


def _answer(answer: Callable[[Recommender, Chunk], Answer], chunk: Chunk) -> Answer:
    return answer(_recommender, chunk)
