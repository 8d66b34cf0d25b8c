"""Model and evidence in one score: SR-GNN for all items, and a bonus for those that a session gives reason for.

A neural model knows what tends to follow what; it forgets pairs of items that were clicked together in few sessions,
and on a small log it learns little. Session-kNN is the other way round. And a session graph does not show whether a
session clicks everything twice. So a few items of each session, those that similar past sessions vote for and those it
clicked itself, get a bonus on top of the model's score: a weighted sum of what :class:`Evidence` says. All others keep
the model's score, which keeps the search exact and its cost independent of the catalogue. Only what is the same for all
sessions, an item's trend, counts everywhere: it is one more column of the catalogue. The weights are fitted on
validation sessions (:mod:`training.blend`).
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .catalogue import Ranks, Top
from .errors import ConfigError
from .habits import NO_HABITS
from .loops import FloatArray
from .loops import evidence as loops
from .loops.evidence import Pairs
from .loops.habits import Habits
from .neighbours import Neighbours
from .scorer import Scorer, SRGNNScorer
from .sequence import IntArray
from .trend import UNIT

MOST_VOTED = 200
"""Items that votes count for, those with the most; counting all, twice as many, changed nothing on validation."""
Used = Literal["all", "habits", "nothing"]
"""Of what an artifact holds beside its model."""
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
    habit: float = 0.0
    """For each e-fold of the odds that sessions of this shape go back to it (:mod:`srgnn.habits`)."""
    score: float = 0.0
    """For each unit of the model's own score of an item that was clicked: at -0.5 it counts half of what it does for
    others. A session's vector is made of those items, so that their scores tell less."""
    trend: float = 0.0
    """For each e-fold of an item's trend (:mod:`srgnn.trend`); this one is for all items."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isfinite(value):
                raise ConfigError(f"weight {name} of the blend is {value}: expected a finite number; train again")


class Evidence(NamedTuple):
    """What a session says about some items, besides what the model makes of it."""

    rows: IntArray
    """[n] distinct catalogue rows."""
    features: FloatArray
    """[n, 7], in the order of :class:`BlendWeights`, without its last, which needs no session."""


def evidence(
    neighbours: Neighbours, habits: Habits, sequence: IntArray, items: npt.NDArray[np.float32], vector: FloatArray
) -> Evidence:
    """Of one non-empty sequence of rows, oldest click first, and its ``vector`` [d], which scores ``items`` [V, d]."""
    rows, shares, places, known = loops.evidence(
        neighbours.memory, habits, sequence, MOST_VOTED, SHARE_UNIT, items, vector
    )
    features = np.zeros((len(rows), 1 + known.shape[1]))
    features[:, 0], features[places, 1:] = shares, known
    return Evidence(rows, features)


def model_of(scorer: Scorer) -> SRGNNScorer:
    """The SR-GNN in an artifact's scorer, with evidence beside it or without."""
    model = scorer.model if isinstance(scorer, BlendScorer) else scorer
    assert isinstance(model, SRGNNScorer)
    return model


class BlendScorer:
    """Scores items as the model does, plus the weighted evidence. A :class:`srgnn.scorer.Scorer`."""

    def __init__(
        self, model: SRGNNScorer, neighbours: Neighbours, weights: BlendWeights, habits: Habits = NO_HABITS
    ) -> None:
        self.model = model
        self.neighbours = neighbours
        self.weights = weights
        self.habits = habits
        self.vector = np.array(astuple(weights)[:-1])
        self.trend = weights.trend * UNIT

    @property
    def num_items(self) -> int:
        """V."""
        return self.model.num_items

    @property
    def search(self) -> str:
        """The model's, and what comes on top."""
        habits = " + habits" if self.habits is not NO_HABITS else ""
        return self.model.search + habits + (" + neighbours" if self.neighbours.index.num_sessions else "")

    def top_k(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        """See :class:`srgnn.scorer.Scorer`."""
        vectors, bonuses = self._asked(sequences)
        return self.model.catalogue.top_k(vectors, k, exclude, bonuses)

    def ranks(self, sequences: Sequence[IntArray], targets: IntArray) -> Ranks:
        """See :class:`srgnn.scorer.Scorer`."""
        vectors, bonuses = self._asked(sequences)
        return self.model.catalogue.ranks(vectors, targets, bonuses)

    def attention(self, sequence: IntArray) -> list[float]:
        """The model's."""
        return self.model.attention(sequence)

    def _asked(self, sequences: Sequence[IntArray]) -> tuple[Tensor, Pairs]:
        """Session vectors [B, D], which know the trend, and what comes on top."""
        vectors = self.model.session_vectors(sequences)
        bonuses = self.bonuses(sequences, vectors)  # first: the model's own scores of clicked items know no trend
        vectors[:, self.model.config.hidden_size :] = self.trend
        return vectors, bonuses

    def bonuses(self, sequences: Sequence[IntArray], vectors: Tensor) -> Pairs:
        """What each session adds to scores of the model, which has made ``vectors`` [B, D] of them; in the order of
        sessions."""
        items, lengths = np.concatenate(sequences), np.fromiter(map(len, sequences), np.int64, len(sequences))
        memory = self.neighbours.memory
        flat: tuple[Any, ...] = (*memory.past, *memory[1:], *self.habits, items, lengths)
        flat += (MOST_VOTED, SHARE_UNIT, self.vector, self.model.catalogue.matrix.numpy(), vectors.numpy())
        return Pairs(*loops.bonuses(*flat))


class Beside(NamedTuple):
    """What an artifact holds beside its model."""

    habits: Habits | None = None
    habit_weights: BlendWeights | None = None
    """Of the session's own clicks, where nobody votes; there with ``habits``."""
    neighbours: Neighbours | None = None
    weights: BlendWeights | None = None
    """Of all evidence; there with ``neighbours``."""

    def scorer(self, model: SRGNNScorer, used: Used = "all") -> Scorer:
        """The model with what is ``used`` of it, as far as it is there."""
        habits = NO_HABITS if self.habits is None else self.habits
        if used == "all" and self.neighbours is not None and self.weights is not None:
            return BlendScorer(model, self.neighbours, self.weights, habits)
        if used != "nothing" and self.habit_weights is not None:
            return BlendScorer(model, Neighbours.nobody(model.num_items), self.habit_weights, habits)
        return model


NOTHING_BESIDE = Beside()
