"""Answers without the model: what followed the last item in training, then what is popular."""

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np

from .sequence import IntArray

NEXT_ITEMS_KEPT = 100
"""Transitions kept for each item, the most frequent first."""


class Answer(NamedTuple):
    """Rows by falling score, the scores, and what they rest on."""

    rows: list[int]
    scores: list[float]
    source: Literal["transitions", "popularity"]


class Fallback:
    """Item counts and item-to-item transitions of the training clicks, carried by the artifact.

    clicks [V]: training clicks of each item.
    offsets [V + 1], next_rows [T], next_clicks [T]: for item i the items that followed it, ``offsets[i]:offsets[i+1]``,
    by falling count, equal counts by row.

    The score is a probability estimate that backs off to popularity: ``count / (total + 1)`` for a seen transition,
    ``share of clicks / (total + 1)`` for any other item; it never ranks an unseen transition above a seen one.
    """

    def __init__(self, clicks: IntArray, offsets: IntArray, next_rows: IntArray, next_clicks: IntArray) -> None:
        self.clicks = clicks
        self.offsets = offsets
        self.next_rows = next_rows
        self.next_clicks = next_clicks
        by_popularity = np.argsort(-clicks, kind="stable")
        self.popular = by_popularity[clicks[by_popularity] > 0]  # rows, most clicked first
        self._all_clicks = max(int(clicks.sum()), 1)

    @classmethod
    def from_sessions(cls, items: IntArray, offsets: IntArray, num_items: int) -> "Fallback":
        """Count over sessions laid end to end: ``items`` [C] rows, ``offsets`` [S + 1]."""
        clicks = np.bincount(items, minlength=num_items).astype(np.int64)
        pair_from, pair_to, counts = transitions(items, offsets, num_items)
        order = np.lexsort((pair_to, -counts, pair_from))
        pair_from, pair_to, counts = pair_from[order], pair_to[order], counts[order]
        starts = np.searchsorted(pair_from, np.arange(num_items))
        kept = np.arange(len(pair_from)) - starts[pair_from] < NEXT_ITEMS_KEPT
        sizes = np.bincount(pair_from[kept], minlength=num_items)
        return cls(clicks, np.concatenate([[0], np.cumsum(sizes)]), pair_to[kept], counts[kept])

    def recommend(self, last_row: int | None, k: int, exclude: Collection[int] = ()) -> Answer:
        """Up to ``k`` rows after a click on ``last_row``, or the popular ones where it is None."""
        begin, end = (0, 0) if last_row is None else self.offsets[last_row : last_row + 2].tolist()
        total = int(self.next_clicks[begin:end].sum()) + 1
        rows: list[int] = []
        scores: list[float] = []
        for row, count in zip(self.next_rows[begin:end].tolist(), self.next_clicks[begin:end].tolist(), strict=True):
            if row not in exclude and len(rows) < k:
                rows.append(row)
                scores.append(count / total)
        source: Literal["transitions", "popularity"] = "transitions" if rows else "popularity"
        taken = set(rows).union(exclude)
        for row in self.popular[: k + len(taken)].tolist():
            if row not in taken and len(rows) < k:
                rows.append(row)
                scores.append(float(self.clicks[row]) / self._all_clicks / total)
        return Answer(rows, scores, source)


def transitions(items: IntArray, offsets: IntArray, num_items: int) -> tuple[IntArray, IntArray, IntArray]:
    """Distinct (from, to) pairs of consecutive clicks within a session and their counts: three int64 [T]."""
    items = items.astype(np.int64)
    inner = np.ones(max(len(items) - 1, 0), dtype=bool)
    inner[offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < len(items))] - 1] = False
    keys, counts = np.unique(items[:-1][inner] * num_items + items[1:][inner], return_counts=True)
    return keys // num_items, keys % num_items, counts.astype(np.int64)
