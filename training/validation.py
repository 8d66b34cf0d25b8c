"""How well a scorer answers held-out examples."""

import numpy as np

from srgnn.model import SRGNN
from srgnn.progress import progress
from srgnn.scorer import Scorer, SRGNNScorer
from srgnn.sequence import IntArray

from . import metrics
from .examples import Examples


def validate(model: SRGNN, examples: Examples, servable: IntArray) -> dict[str, float]:
    """Recall@20 and MRR@20 by the scorer that will serve."""
    model.eval()
    return figures(SRGNNScorer.of_model(model, servable > 0), examples)


def figures(scorer: Scorer, examples: Examples) -> dict[str, float]:
    """Recall@20 and MRR@20."""
    targets, size = examples.targets, 1024
    ranks = np.zeros(len(examples), np.int64)
    with progress("  validate", len(examples)) as advance:
        for start in range(0, len(examples), size):
            indices = np.arange(start, min(start + size, len(examples)))
            ranks[indices] = scorer.ranks(examples.sequences(indices), targets[indices]).rank
            advance(len(indices))
    return {"recall@20": metrics.recall_at(ranks, 20), "mrr@20": metrics.mrr_at(ranks, 20)}
