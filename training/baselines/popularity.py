"""Popularity: the same list for everybody, most clicked items first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from srgnn.scorer import DenseScorer
from srgnn.sequence import IntArray


class Popularity(DenseScorer):
    """Scores every item by its clicks [V], whatever the session; items without clicks are not answered."""

    def __init__(self, item_counts: IntArray) -> None:
        super().__init__(len(item_counts))
        self._scores = np.where(item_counts > 0, item_counts, -np.inf).astype(np.float32)

    @classmethod
    def fit(cls, items: IntArray, offsets: IntArray, num_items: int) -> Popularity:
        """Count the clicks of sessions laid end to end: ``items`` [C], ``offsets`` [S + 1]."""
        return cls(np.bincount(items, minlength=num_items).astype(np.int64))

    def scores(self, sequences: Sequence[IntArray]) -> npt.NDArray[np.float32]:
        """Clicks of every item, once per sequence: float32 [B, V]."""
        return np.tile(self._scores, (len(sequences), 1))
