"""Live quality: the next click of a session judges the answer to the one before, as evaluation does offline.

Counted, not averaged: Prometheus divides what was counted within any window, and adds up workers and replicas.

    Recall@20 = rate(srgnn_judged_hits_total) / rate(srgnn_judged_answers_total)
    MRR@20    = rate(srgnn_judged_reciprocal_ranks_total) / rate(srgnn_judged_answers_total)

What was answered is judged: where a request asks for fewer than 20 items, or excludes some, so is its answer.
"""

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from srgnn.recommender import Recommendation, Recommender

from .sessions.store import Answer, Session
from .telemetry import Metrics

JUDGED_ITEMS = 20
"""The first items of an answer, by which it is judged."""
COVERAGE_SECONDS = 3600


class Quality:
    """Counts into ``metrics``. Workers that share ``directory`` know together what was recommended."""

    def __init__(self, metrics: Metrics, directory: Path | None = None) -> None:
        self._metrics = metrics
        self._directory = directory
        self._recommended: _Recommended | None = None

    def judge(self, session: Session) -> None:
        """Judge the answer to the click before the session's last one, where it is known."""
        if session.answered is None:
            return
        source, items = session.answered
        *before, clicked = session.items
        rank = items.index(clicked) + 1 if clicked in items else None
        self._metrics.judged(source, rank, repeat=clicked in before)

    def answered(self, recommender: Recommender, best: Recommendation) -> Answer:
        """Note what is recommended now; the answer to remember for :meth:`judge`."""
        items = best.item_ids[:JUDGED_ITEMS]
        if self._recommended is None or self._recommended.model != recommender.version:
            self._recommended = _Recommended(recommender, self._directory)
        self._recommended.add(recommender.vocabulary.rows(items))
        return Answer(best.source, tuple(items))

    def coverage(self) -> float:
        """Share of the servable catalogue recommended within this hour or the one before."""
        return self._recommended.coverage() if self._recommended else 0.0


class _Recommended:
    """When each item of a catalogue was last recommended, in memory or in a file that workers share."""

    def __init__(self, recommender: Recommender, directory: Path | None) -> None:
        self.model = recommender.version
        self._servable = recommender.fallback.clicks > 0  # [V]
        size = len(self._servable)
        self._hours = (
            np.zeros(size, np.uint32) if directory is None else _shared(directory / f"{self.model}.hours", size)
        )

    def add(self, rows: npt.NDArray[np.int64]) -> None:
        self._hours[rows] = _hour()

    def coverage(self) -> float:
        recently = self._hours >= _hour() - 1
        return float(recently[self._servable].sum() / max(self._servable.sum(), 1))


def _shared(file: Path, size: int) -> npt.NDArray[np.uint32]:
    """Zeros that all processes see which open the same file. No lock: whoever writes, writes the hour."""
    with file.open("ab") as handle:
        handle.truncate(size * np.dtype(np.uint32).itemsize)
    return np.memmap(file, np.uint32, mode="r+", shape=(size,))


def _hour() -> int:
    return int(time.time() // COVERAGE_SECONDS)
