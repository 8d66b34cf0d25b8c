"""Simple methods a model must beat to be worth serving, behind the same Recommender as the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from srgnn.fallback import Fallback
from srgnn.neighbours import STAN
from srgnn.recommender import Recommender
from srgnn.scorer import Scorer
from srgnn.sequence import IntArray, SessionRules
from srgnn.vocabulary import Vocabulary

from ..corpus import Split
from .item_knn import ItemKNN
from .markov import Markov
from .popularity import Popularity
from .session_knn import SKNN, VSKNN, SessionKNN
from .session_popularity import SessionPopularity

Fit = Callable[[IntArray, IntArray, int], Scorer]
"""(items [C], offsets [S + 1], num_items) -> scorer."""

BASELINES: dict[str, Fit] = {
    "popularity": Popularity.fit,
    "session-popularity": SessionPopularity.fit,
    "markov": Markov.fit,
    "item-knn": ItemKNN.fit,
    "s-knn": partial(SessionKNN.fit, weights=SKNN),
    "v-sknn": partial(SessionKNN.fit, weights=VSKNN),
    "stan": partial(SessionKNN.fit, weights=STAN),
}


def fit_baselines(vocabulary: Vocabulary, rules: SessionRules, split: Split) -> dict[str, Recommender]:
    """Every baseline, fitted on the clicks of ``split``."""
    items, offsets = np.asarray(split.items, dtype=np.int64), np.asarray(split.offsets)
    fallback = Fallback.from_sessions(items, offsets, len(vocabulary))
    return {
        name: Recommender(vocabulary, rules, fit(items, offsets, len(vocabulary)), fallback, name)
        for name, fit in BASELINES.items()
    }
