"""Item-kNN: the items that share the most sessions with the last click."""

from __future__ import annotations

import numpy as np

from srgnn.neighbours import Votes
from srgnn.sequence import IntArray
from srgnn.session_index import SessionIndex, spans

from .votes import VoteScorer

SAMPLE = 1000
"""Latest sessions of the last click that are looked at."""
REGULARISATION = 100
"""Sessions added to each item's own, so that few common sessions do not make two rare items alike."""


class ItemKNN(VoteScorer):
    """Cosine co-occurrence with the last click: ``|S_i & S_j| / sqrt((|S_i| + r) (|S_j| + r))``.

    Item-KNN of Hidasi et al. (ICLR 2016), with two differences, both better on validation: the last click
    recommends itself as well (a fifth of the next clicks of shop logs are repeats), and r is 100, not 20. The factor
    of the last click is the same for every candidate and left out.
    """

    def __init__(self, index: SessionIndex, item_counts: IntArray) -> None:
        super().__init__(item_counts)
        self._index = index
        self._weight = 1.0 / np.sqrt(np.diff(index.item_starts) + REGULARISATION)

    @classmethod
    def fit(cls, items: IntArray, offsets: IntArray, num_items: int) -> ItemKNN:
        """Index sessions laid end to end, the oldest first: ``items`` [C], ``offsets`` [S + 1]."""
        item_counts = np.bincount(items, minlength=num_items).astype(np.int64)
        return cls(SessionIndex.build(items, offsets, num_items), item_counts)

    def votes(self, sequence: IntArray) -> Votes:
        """One vote from each session of the last click, for each of its items."""
        index = self._index
        begin, end = index.item_starts[sequence[-1] : sequence[-1] + 2].tolist()
        sessions = index.sessions[begin : min(end, begin + SAMPLE)]
        starts = index.session_starts[sessions]
        rows = index.clicked[spans(starts, index.session_starts[sessions + 1] - starts)]
        return Votes(rows, self._weight[rows])
