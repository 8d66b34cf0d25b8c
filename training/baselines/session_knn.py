"""Session-kNN: the items of the past sessions most like the current one. S-KNN, V-SKNN and a STAN-like variant are one
method with different weights."""

from __future__ import annotations

import numpy as np

from srgnn.neighbours import STAN, Neighbours, Votes, Weights
from srgnn.sequence import IntArray
from srgnn.session_index import SessionIndex

from .votes import VoteScorer

SKNN = Weights(sample=100, cosine=True)
"""S-KNN: cosine of the sets of items (Jannach and Ludewig, RecSys 2017)."""
VSKNN = Weights(sample=100, linear=True, idf=True)
"""V-SKNN: later clicks count more (Ludewig and Jannach, UMUAI 2018)."""


class SessionKNN(VoteScorer):
    """The votes of :class:`srgnn.neighbours.Neighbours`, and nothing else."""

    def __init__(self, neighbours: Neighbours, item_counts: IntArray) -> None:
        super().__init__(item_counts)
        self._neighbours = neighbours

    @classmethod
    def fit(cls, items: IntArray, offsets: IntArray, num_items: int, weights: Weights = STAN) -> SessionKNN:
        """Index sessions laid end to end, the oldest first: ``items`` [C], ``offsets`` [S + 1]."""
        item_counts = np.bincount(items, minlength=num_items).astype(np.int64)
        return cls(Neighbours(SessionIndex.build(items, offsets, num_items), weights), item_counts)

    def votes(self, sequence: IntArray) -> Votes:
        """Every item of every neighbour, weighted."""
        return self._neighbours.votes(sequence)
