"""The same work on many chunks in several processes that share one artifact."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import torch

from .errors import SRGNNError
from .garbage import settle
from .recommender import Recommender
from .threads import limit_threads

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

    Several workers are copies of this process where they can be, which takes no time; else each loads ``artifact``,
    whose large parts are mapped files and so in memory once. ``answer`` is then a function of a module, or a
    ``partial`` of one. Raises whatever ``answer`` raises, and SRGNNError where a worker died.
    """
    if workers == 1 or artifact is None:
        for chunk in chunks:
            yield answer(recommender, chunk)
        return
    with _pool(workers, recommender, artifact) as pool:
        try:
            pool.submit(int)  # a copy is made before reading begins, which may take threads
            yield from _in_order(pool, answer, chunks, AHEAD * workers)
        except BrokenProcessPool as error:
            raise SRGNNError(
                f"one of {workers} worker processes died, most likely for want of memory: try fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _pool(workers: int, recommender: Recommender, artifact: Path) -> ProcessPoolExecutor:
    if _may_be_copied():
        return ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _take, (recommender,))
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _load, (artifact,))


def _may_be_copied() -> bool:
    """Whether workers may be forked. A copy may wait for threads that it does not have, so there must be none of
    Python's or torch's (numpy's BLAS starts its own anew); on other systems than Linux their own libraries have some.
    """
    return sys.platform == "linux" and threading.active_count() == 1 and torch.get_num_threads() == 1


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

    limit_threads(1)  # the other cores have workers of their own
    _take(load(artifact).recommender)


def _take(recommender: Recommender) -> None:
    global _recommender
    _recommender = recommender
    settle()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A copy holds the parent's end of what it reads from as well, so that it would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _answer(answer: Callable[[Recommender, Chunk], Answer], chunk: Chunk) -> Answer:
    return answer(_recommender, chunk)
