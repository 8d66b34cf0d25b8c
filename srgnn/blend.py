"""Model and neighbours in one score: SR-GNN for all items, and a bonus for those that a session gives reason for.

A neural model knows what tends to follow what; it forgets pairs of items that were clicked together in few sessions,
and on a small log it learns little. Session-kNN is the other way round. So a few items of each session, those that
similar past sessions vote for and those it clicked itself, get a bonus on top of the model's score: a weighted sum of
what :class:`Evidence` says. The weights are fitted on validation sessions (:mod:`training.blend`). All other items keep
the model's score, which keeps the search exact and its cost independent of the catalogue.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import isfinite
from typing import NamedTuple

import numpy as np

from .catalogue import Bonus, Ranks, Top
from .compiled import FloatArray, compiled, offer
from .errors import ConfigError
from .neighbours import Memory, Neighbours, empty_table, last_clicks, slot_of, votes
from .scorer import Scorer, SRGNNScorer
from .sequence import IntArray

MOST_VOTED = 200
"""Items that votes count for, those with the most; counting all, twice as many, changed nothing on validation."""
SHARE_UNIT = 1e-3
"""Share of all votes that counts as little: more than that counts by its logarithm, less in proportion."""
LEAST = float(np.finfo(np.float64).tiny)
"""All votes weigh nothing where every session holds what they are for."""


@dataclass(frozen=True)
class BlendWeights:
    """What each part of the evidence adds to a model's score of an item."""

    votes: float = 0.0
    """For each e-fold of the item's share of the votes."""
    clicked: float = 0.0
    """For an item that the session has clicked; less than nothing where shops or readers do not come back."""
    age: float = 0.0
    """For each e-fold of one more than the clicks made since."""
    repeats: float = 0.0
    """For each e-fold of the times it was clicked."""
    last: float = 0.0
    """For the last click itself."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isfinite(value):
                raise ConfigError(f"weight {name} of the blend is {value}: expected a finite number; train again")


class Evidence(NamedTuple):
    """What a session says about some items, besides what the model makes of it."""

    rows: IntArray
    """[n] distinct catalogue rows."""
    features: FloatArray
    """[n, 5], in the order of :class:`BlendWeights`."""


def evidence(neighbours: Neighbours, sequence: IntArray) -> Evidence:
    """Of one non-empty sequence of rows, oldest click first."""
    return Evidence(*_evidence(neighbours.memory, sequence))


@compiled
def _evidence(memory: Memory, sequence: IntArray) -> tuple[IntArray, FloatArray]:
    voted, sums = votes(memory, sequence)
    clicked, ages, times = last_clicks(sequence)
    total = 0.0
    size = min(len(voted), MOST_VOTED)
    best, most_voted = np.empty(size), np.empty(size, np.int64)
    held = 0
    for i in range(len(voted)):
        total += sums[i]
        held = offer(best, most_voted, held, sums[i], voted[i])
    rows = np.empty(size + len(clicked), np.int64)
    table = empty_table(len(rows))
    for i in range(size):
        rows[i], table[slot_of(table, rows, most_voted[i])] = most_voted[i], i
    found = size
    for row in clicked:
        slot = slot_of(table, rows, row)
        if table[slot] < 0:
            rows[found], table[slot] = row, found
            found += 1
    features = np.zeros((found, 5))
    for i in range(size):
        features[i, 0] = np.log1p(best[i] / max(total, LEAST) / SHARE_UNIT)
    for i in range(len(clicked)):
        own = features[table[slot_of(table, rows, clicked[i])]]
        own[1], own[2], own[3], own[4] = 1.0, np.log1p(ages[i]), np.log(times[i]), ages[i] == 0
    return rows[:found], features


@compiled
def _bonus(memory: Memory, weights: FloatArray, sequence: IntArray) -> tuple[IntArray, FloatArray]:
    """Rows [n], and the weighted sum of their features [n]."""
    rows, features = _evidence(memory, sequence)
    scores = np.zeros(len(rows))
    for i in range(len(rows)):
        for j in range(len(weights)):
            scores[i] += weights[j] * features[i, j]
    return rows, scores


def model_of(scorer: Scorer) -> SRGNNScorer:
    """The SR-GNN in an artifact's scorer, with neighbours or without."""
    model = scorer.model if isinstance(scorer, BlendScorer) else scorer
    assert isinstance(model, SRGNNScorer)
    return model


class BlendScorer:
    """Scores items as the model does, plus the weighted evidence. A :class:`srgnn.scorer.Scorer`."""

    def __init__(self, model: SRGNNScorer, neighbours: Neighbours, weights: BlendWeights) -> None:
        self.model = model
        self.neighbours = neighbours
        self.weights = weights
        self._vector = np.array(astuple(weights))

    @property
    def num_items(self) -> int:
        """V."""
        return self.model.num_items

    @property
    def search(self) -> str:
        """The model's, and what comes on top."""
        return f"{self.model.search} + neighbours"

    def top_k(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        """See :class:`srgnn.scorer.Scorer`."""
        vectors = self.model.session_vectors(sequences)
        return self.model.catalogue.top_k(vectors, k, exclude, self._bonuses(sequences))

    def ranks(self, sequences: Sequence[IntArray], targets: IntArray) -> Ranks:
        """See :class:`srgnn.scorer.Scorer`."""
        return self.model.catalogue.ranks(self.model.session_vectors(sequences), targets, self._bonuses(sequences))

    def attention(self, sequence: IntArray) -> list[float]:
        """The model's."""
        return self.model.attention(sequence)

    def _bonuses(self, sequences: Sequence[IntArray]) -> list[Bonus]:
        memory = self.neighbours.memory
        return [Bonus(*_bonus(memory, self._vector, sequence)) for sequence in sequences]
