"""Models that learnt the same examples first, and whose chances the next model learns beside the clicks.

A log says of each example only what one visitor clicked; what several models together hold likely says what else could
have been (distillation, Hinton et al. 2015; from equals, Furlanello et al. 2018). It costs their training, and nothing
when serving.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from srgnn.model import SRGNN
from srgnn.session_batch import SessionBatch

from .loss import Taught

SEEDS_APART = 1_000
"""Between the seeds of a model and of its teachers: neighbouring seeds share no teacher."""


class Teachers:
    """Of one model: ``share`` of its aim is theirs."""

    def __init__(self, models: Sequence[SRGNN], share: float) -> None:
        self._models = [model.eval().requires_grad_(False) for model in models]
        self._share = share

    @torch.no_grad()
    def of(self, graph: SessionBatch, rows: Tensor | None) -> Taught:
        """For a batch of sessions and the given rows of the catalogue, or all of it."""
        vectors = torch.stack([model.session_vectors(graph, model.item_matrix(graph.x)) for model in self._models])
        items = torch.stack([model.item_matrix(rows) for model in self._models])
        return Taught(vectors, items, self._share)


def teacher_seed(seed: int, number: int) -> int:
    """Of a teacher's first weights, order of examples and negatives; ``number`` counts from 0."""
    return seed + SEEDS_APART * (number + 1)
