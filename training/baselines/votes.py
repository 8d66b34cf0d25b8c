"""Scorers that collect votes for a few items of the catalogue; popularity orders all the others behind them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from srgnn.catalogue import Ranks, Top
from srgnn.errors import InputError
from srgnn.neighbours import Votes
from srgnn.scorer import top_rows
from srgnn.sequence import IntArray

Scores = npt.NDArray[np.float32]

TIE_BREAK = 1e-3
"""Popularity changes a score by this share of it at most: it decides between items with as many votes."""


class VoteScorer(ABC):
    """Scores the items that :meth:`votes` names by the sum of their votes, all others below by popularity.

    item_counts [V]: clicks of each item; items without clicks are not answered. A voted item scores 0 or more, any
    other one a negative whole number. Each session is scored by itself, so an answer cannot depend on its batch, and
    no array of length V is touched for a list.
    """

    def __init__(self, item_counts: IntArray) -> None:
        self._num_items = len(item_counts)
        self._servable = item_counts > 0
        distinct, level = np.unique(item_counts, return_inverse=True)
        self._nudge = 1.0 + TIE_BREAK * level / len(distinct)
        self._unvoted = np.where(self._servable, level - len(distinct), -np.inf).astype(np.float32)
        by_popularity = np.argsort(-item_counts, kind="stable")
        self._popular = by_popularity[self._servable[by_popularity]]

    @property
    def num_items(self) -> int:
        """V."""
        return self._num_items

    @property
    def search(self) -> str:
        """Only items with votes are compared."""
        return "votes"

    @abstractmethod
    def votes(self, sequence: IntArray) -> Votes:
        """Votes for the next item of one non-empty sequence of rows, oldest click first."""

    def top_k(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        """See :class:`srgnn.scorer.Scorer`."""
        if not 1 <= k <= self.num_items:
            raise InputError(f"k is {k}: the catalogue has {self.num_items} items, ask for 1 to {self.num_items}")
        rows = np.full((len(sequences), k), -1)
        scores = np.full((len(sequences), k), -np.inf, np.float32)
        nothing = np.empty(0, np.int64)
        for i, sequence in enumerate(sequences):
            found, own = self._best(sequence, k, exclude[i] if exclude is not None else nothing)
            rows[i, : len(found)], scores[i, : len(found)] = found, own
        return Top(rows, scores)

    def ranks(self, sequences: Sequence[IntArray], targets: IntArray) -> Ranks:
        """See :class:`srgnn.scorer.Scorer`."""
        pairs = [self._rank(*pair) for pair in zip(sequences, targets.tolist(), strict=True)]
        rank, ties = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return Ranks(rank, ties)

    def _count(self, sequence: IntArray) -> tuple[IntArray, Scores]:
        """The servable items with votes, rising [n], and their scores [n]."""
        votes = self.votes(sequence)
        rows, voted = np.unique(votes.rows.astype(np.int64), return_inverse=True)
        sums = np.bincount(voted, votes.weights, len(rows)) * self._nudge[rows]
        servable = self._servable[rows]
        return rows[servable], sums[servable].astype(np.float32)

    def _best(self, sequence: IntArray, k: int, exclude: IntArray) -> tuple[IntArray, Scores]:
        """Up to k rows and their scores, best first."""
        rows, scores = self._count(sequence)
        others = np.concatenate([rows, exclude])  # rows that popularity need not bring
        if len(exclude):
            left = ~np.isin(rows, exclude)
            rows, scores = rows[left], scores[left]
        best = top_rows(scores, min(k, len(rows))) if len(rows) else rows
        if len(best) == k:
            return rows[best], scores[best]
        popular = self._popular[: k + len(others)]
        popular = popular[~np.isin(popular, others)][: k - len(best)]
        return np.concatenate([rows[best], popular]), np.concatenate([scores[best], self._unvoted[popular]])

    def _rank(self, sequence: IntArray, target: int) -> tuple[int, int]:
        """Items scoring at least as much as the target, and other items scoring exactly as much."""
        rows, scores = self._count(sequence)
        place = int(np.searchsorted(rows, target))
        if place < len(rows) and rows[place] == target:
            return int((scores >= scores[place]).sum()), int((scores == scores[place]).sum()) - 1
        own = self._unvoted[target]
        unvoted = np.delete(self._unvoted, rows)
        if np.isneginf(own):
            return self.num_items, int(np.isneginf(unvoted).sum()) - 1
        return len(rows) + int((unvoted >= own).sum()), int((unvoted == own).sum()) - 1
