"""Last-item Markov: what was clicked right after the last item, most often first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from srgnn.fallback import transitions
from srgnn.scorer import DenseScorer
from srgnn.sequence import IntArray

Scores = npt.NDArray[np.float32]


class Markov(DenseScorer):
    """First-order transitions from the last click; popularity orders equal counts and fills the list.

    sources, targets, counts [T]: distinct pairs of consecutive clicks and how often each occurred, sorted by
    source. item_counts [V]: clicks of each item; items without clicks are not answered.

    Scores are ranks of counts, not counts: ``level + popularity level``, where the level of a count among the
    counts of one source is a whole number and the popularity level lies in [0, 1). Both are small, so float32
    keeps the exact order; count + tie-break would round, and the ties it creates would count against Markov.
    """

    def __init__(self, sources: IntArray, targets: IntArray, counts: IntArray, item_counts: IntArray) -> None:
        super().__init__(len(item_counts))
        self._starts = np.searchsorted(sources, np.arange(self.num_items + 1))
        self._targets = targets
        self._levels = _levels_within(sources, counts)
        distinct, level = np.unique(item_counts, return_inverse=True)
        self._popularity = np.where(item_counts > 0, level / len(distinct), -np.inf).astype(np.float32)

    @classmethod
    def fit(cls, items: IntArray, offsets: IntArray, num_items: int) -> Markov:
        """Count over sessions laid end to end: ``items`` [C], ``offsets`` [S + 1]."""
        item_counts = np.bincount(items, minlength=num_items).astype(np.int64)
        return cls(*transitions(items, offsets, num_items), item_counts)

    def scores(self, sequences: Sequence[IntArray]) -> Scores:
        """Scores of every item after the last click of each sequence: float32 [B, V]."""
        last = np.array([sequence[-1] for sequence in sequences], dtype=np.int64)
        scores = np.tile(self._popularity, (len(last), 1))
        found = self._starts[last + 1] - self._starts[last]
        owner = np.repeat(np.arange(len(last)), found)
        first = self._starts[last] - (np.cumsum(found) - found)
        pair = np.arange(len(owner)) + first[owner]
        scores[owner, self._targets[pair]] += self._levels[pair]
        return scores


def _levels_within(sources: IntArray, counts: IntArray) -> Scores:
    """1 for the smallest count of a source, 2 for the next larger one, ...: float32 [T]."""
    order = np.lexsort((counts, sources))
    new_source = np.diff(sources, prepend=-1) != 0  # sources are sorted, so ``order`` leaves them in place
    new_level = new_source | (np.diff(counts[order], prepend=-1) != 0)
    level = np.cumsum(new_level)
    before = np.maximum.accumulate(np.where(new_source, level - 1, 0))
    levels = np.empty(len(order), np.float32)
    levels[order] = level - before
    return levels
