"""Session-kNN: the items of the past sessions most like the current one. S-KNN, V-SKNN and a STAN-like variant are one
method with different weights."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from srgnn.scorer import top_rows
from srgnn.sequence import IntArray

from .sessions import SessionIndex, spans
from .votes import FloatArray, Votes, VoteScorer


@dataclass(frozen=True)
class Weights:
    """What counts how much. As it stands, every click, past session and item of it counts the same.

    The age of a click is the number of clicks made after it, the age of a past session the share of sessions that
    began after it; both are 0 for the last one.
    """

    neighbours: int = 200
    """k: most similar past sessions, which vote for their items; of equally similar ones the latest."""
    sample: int = 500
    """m: latest sessions of each clicked item that are compared at all, as in Serenade (Kersbergen et al., SIGMOD
    2022): it bounds the cost of a popular item."""
    cosine: bool = False
    """Divide a similarity by the square root of the number of items of the past session."""
    linear: bool = False
    """Count a click of the current session ``1 - age / length``, and the votes of a neighbour ``1 - age / 10``
    (at least 0), with the age of the last click it shares."""
    click_decay: float = inf
    """Count a click of the current session ``exp(-age / click_decay)``."""
    session_decay: float = inf
    """Count a past session ``exp(-age / session_decay)``."""
    distance_decay: float = inf
    """Count a vote ``exp(-distance / distance_decay)``, with the clicks between its item and the last shared click."""
    idf: bool = False
    """Count an item ``log(S / |S_i|)``, in a similarity and in a vote."""


SKNN = Weights(sample=100, cosine=True)
"""S-KNN: cosine of the sets of items (Jannach and Ludewig, RecSys 2017)."""
VSKNN = Weights(sample=100, linear=True, idf=True)
"""V-SKNN: later clicks count more (Ludewig and Jannach, UMUAI 2018)."""
STAN = Weights(click_decay=1.5, session_decay=1.0, distance_decay=4.0, idf=True)
"""The three decays of STAN (Garg et al., SIGIR 2019). Unlike there, rare items count more and the similarity
is no cosine: both were better on validation (docs/log.md)."""


class SessionKNN(VoteScorer):
    """Neighbours are past sessions that share an item with the current one; each votes for all of its items.

    In a session, current or past, an item stands where it was clicked last.
    """

    def __init__(self, index: SessionIndex, item_counts: IntArray, weights: Weights) -> None:
        super().__init__(item_counts)
        self.weights = weights
        self._index = index
        self._sampled = np.minimum(np.diff(index.item_starts), weights.sample)
        sessions_of_item = np.maximum(np.diff(index.item_starts), 1)
        self._item_weight = np.log(index.num_sessions / sessions_of_item) if weights.idf else np.ones(self.num_items)
        self._session_weight = np.exp(-np.arange(index.num_sessions) / index.num_sessions / weights.session_decay)
        if weights.cosine:
            self._session_weight /= np.sqrt(np.diff(index.session_starts))

    @classmethod
    def fit(cls, items: IntArray, offsets: IntArray, num_items: int, weights: Weights = STAN) -> SessionKNN:
        """Index sessions laid end to end, the oldest first: ``items`` [C], ``offsets`` [S + 1]."""
        item_counts = np.bincount(items, minlength=num_items).astype(np.int64)
        return cls(SessionIndex.build(items, offsets, num_items), item_counts, weights)

    def votes(self, sequence: IntArray) -> Votes:
        """Every item of every neighbour, weighted."""
        rows, ages = _last_clicks(sequence)
        sessions, similarity, shared_at = self._neighbours(rows, ages, len(sequence))
        starts = self._index.session_starts[sessions]
        lengths = self._index.session_starts[sessions + 1] - starts
        places = spans(starts, lengths)
        voted = self._index.clicked[places]
        distance = self._index.clicked_at[places] - np.repeat(shared_at, lengths)
        weights = np.repeat(similarity, lengths) * self._item_weight[voted]
        weights *= np.exp(-np.abs(distance) / self.weights.distance_decay)
        return Votes(voted, weights)

    def _neighbours(self, rows: IntArray, ages: IntArray, length: int) -> tuple[IntArray, FloatArray, IntArray]:
        """The k most similar sessions, how similar they are, and the place of the last shared click in each."""
        counts = self._sampled[rows]
        places = spans(self._index.item_starts[rows], counts)
        sessions, shared = np.unique(self._index.sessions[places], return_inverse=True)
        clicks = self._click_weight(ages, length) * self._item_weight[rows]
        common = np.bincount(shared, np.repeat(clicks, counts), len(sessions))
        similarity: FloatArray = self._session_weight[sessions] * common
        last = np.empty(len(sessions), np.int64)
        last[shared] = np.arange(len(shared))  # of several shared clicks the last one stays: ``rows`` are in order
        if self.weights.linear:
            similarity *= np.maximum(0.0, 1.0 - np.repeat(ages, counts)[last] / 10)
        nearest = top_rows(similarity, min(self.weights.neighbours, len(sessions))) if len(sessions) else sessions
        return sessions[nearest], similarity[nearest], self._index.sessions_at[places[last[nearest]]]

    def _click_weight(self, ages: IntArray, length: int) -> FloatArray:
        weights: FloatArray = 1.0 - ages / length if self.weights.linear else np.exp(-ages / self.weights.click_decay)
        return weights


def _last_clicks(sequence: IntArray) -> tuple[IntArray, IntArray]:
    """The distinct items of a sequence in the order of their last clicks, and the ages of these clicks: two [n]."""
    rows, ages = np.unique(sequence[::-1], return_index=True)
    order = np.argsort(-ages)
    return rows[order], ages[order]
