"""The past sessions most like the current one, and how they vote for its next click."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isnan
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .loops import FloatArray
from .loops.neighbours import DISTANCES, Memory, votes
from .sequence import IntArray
from .session_index import SessionIndex

MOST_NEIGHBOURS = 10_000
"""Of either number in Weights: what one click may cost."""


class Votes(NamedTuple):
    """What is known of a session's next item."""

    rows: npt.NDArray[np.integer[Any]]
    """[n] catalogue rows; an item may get several votes."""
    weights: FloatArray
    """[n] >= 0."""


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

    def __post_init__(self) -> None:
        for name in ("neighbours", "sample"):
            value = getattr(self, name)
            if not 1 <= value <= MOST_NEIGHBOURS:
                raise ConfigError(f"{name} is {value}: expected 1 to {MOST_NEIGHBOURS}")
        for name in ("click_decay", "session_decay", "distance_decay"):
            value = getattr(self, name)
            if isnan(value) or value <= 0:
                raise ConfigError(f"{name} is {value}: expected a number above 0")


STAN = Weights(click_decay=1.5, session_decay=1.0, distance_decay=4.0, idf=True)
"""The three decays of STAN (Garg et al., SIGIR 2019). Unlike there, rare items count more and the similarity
is no cosine: both were better on validation (docs/log.md)."""
VOTERS = replace(STAN, neighbours=100, sample=250)
"""Those that vote beside a model, which knows most of it: twice as many add little (docs/log.md), and cost more."""


class Neighbours:
    """Neighbours are past sessions that share an item with the current one; each votes for all of its items.

    In a session, current or past, an item stands where it was clicked last. Each session is looked at by itself, so
    that votes cannot depend on a batch.
    """

    def __init__(self, index: SessionIndex, weights: Weights = STAN) -> None:
        self.index = index
        self.weights = weights
        sessions_of_item = np.maximum(np.diff(index.item_starts), 1)
        idf = np.log(index.num_sessions / sessions_of_item) if weights.idf else np.ones(len(sessions_of_item))
        self.memory = Memory(
            index,
            idf,
            weights.cosine,
            float(weights.session_decay),
            weights.neighbours,
            weights.sample,
            weights.linear,
            float(weights.click_decay),
            float(weights.distance_decay),
            np.exp(-np.arange(DISTANCES) / weights.distance_decay),
        )

    @classmethod
    def nobody(cls, num_items: int) -> Neighbours:
        """No past session at all: nobody votes."""
        return cls(SessionIndex.build(np.empty(0, np.int64), np.zeros(1, np.int64), num_items), Weights())

    def votes(self, sequence: IntArray) -> Votes:
        """Every item of every neighbour of one non-empty sequence of rows, oldest click first, once each."""
        return Votes(*votes(self.memory, sequence))
