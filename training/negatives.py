"""Items that a next click is compared with, where the whole catalogue would cost too much."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from srgnn.sequence import IntArray

POPULARITY_POWER = 0.5
"""Items are drawn in proportion to this power of their clicks: 0 would hardly ever meet the popular ones, which score
high and matter most; 1 would hardly ever meet the others."""


class Candidates(NamedTuple):
    """R items of the catalogue that stand for all of it in one step."""

    rows: IntArray
    """[R] catalogue rows, rising."""
    correction: npt.NDArray[np.float32]
    """[R] what to add to a score of an item as a negative; -inf: it was not drawn, and is there as a target alone."""
    targets: IntArray
    """[B] where the targets stand in ``rows``."""


class Negatives:
    """Draws items with replacement, and the corrections that make the sampled softmax estimate the full one.

    An item drawn c times among n with chance q stands for ``c / (n q)`` items like itself: the logarithm of that is
    added to its score (logQ; Bengio and Senecal 2008), so that the sum over a sample has the sum over the catalogue as
    its mean. Items without clicks are never drawn, as they are never answered.

    clicks [V]: training clicks of every item; size: n.
    """

    def __init__(self, clicks: IntArray, size: int) -> None:
        weight = clicks.astype(np.float64) ** POPULARITY_POWER
        self._size = size
        self._chance = weight / weight.sum()  # [V]
        self._upto = np.cumsum(self._chance)
        self._upto[np.flatnonzero(clicks)[-1] :] = 1.0  # whatever rounding says, nothing lies beyond

    def draw(self, targets: IntArray, rng: np.random.Generator) -> Candidates:
        """Candidates for one batch: ``size`` draws, and the targets [B] themselves."""
        drawn = np.searchsorted(self._upto, rng.random(self._size), side="right")
        rows, inverse = np.unique(np.concatenate([drawn, targets]), return_inverse=True)
        times = np.bincount(inverse[: self._size], minlength=len(rows))
        with np.errstate(divide="ignore"):  # log 0 is what is meant: a target that was not drawn
            correction = np.log(times / (self._size * self._chance[rows]))
        return Candidates(rows, correction.astype(np.float32), inverse[self._size :])
