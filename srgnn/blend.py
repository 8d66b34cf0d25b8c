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
from typing import Any, NamedTuple

import numpy as np

from . import loops
from .catalogue import Ranks, Top
from .errors import ConfigError
from .loops import FloatArray, Pairs
from .neighbours import Neighbours
from .scorer import Scorer, SRGNNScorer
from .sequence import IntArray

MOST_VOTED = 200
"""Items that votes count for, those with the most; counting all, twice as many, changed nothing on validation."""
SHARE_UNIT = 1e-3
"""Share of all votes that counts as little: more than that counts by its logarithm, less in proportion."""


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
    return Evidence(*loops.evidence(neighbours.memory, sequence, MOST_VOTED, SHARE_UNIT))


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
        return self.model.catalogue.top_k(vectors, k, exclude, self.bonuses(sequences))

    def ranks(self, sequences: Sequence[IntArray], targets: IntArray) -> Ranks:
        """See :class:`srgnn.scorer.Scorer`."""
        return self.model.catalogue.ranks(self.model.session_vectors(sequences), targets, self.bonuses(sequences))

    def attention(self, sequence: IntArray) -> list[float]:
        """The model's."""
        return self.model.attention(sequence)

    def bonuses(self, sequences: Sequence[IntArray]) -> Pairs:
        """What each session adds to scores of the model, in the order of sessions."""
        items, lengths = np.concatenate(sequences), np.fromiter(map(len, sequences), np.int64, len(sequences))
        memory = self.neighbours.memory
        flat: tuple[Any, ...] = (*memory.past, *memory[1:], items, lengths, MOST_VOTED, SHARE_UNIT, self._vector)
        return Pairs(*loops.bonuses(*flat))
