"""How much more an item is clicked of late than over its whole log.

A model learns from all clicks alike, in whatever order training draws them, so it answers with what the period liked on
average. What is on offer and in fashion when the period ends is what matters to whoever comes next. So the logarithm of
an item's share of late clicks is one more number of it, the last column of the catalogue's matrix, and session vectors
get a last number that says how much it counts (:mod:`srgnn.blend`): in a search it costs what any other number does.
A recipe may have it corrected by a forecast that training learns (:mod:`training.trend`); it is stored the same way.
"""

import numpy as np
import numpy.typing as npt

from .loops import FloatArray
from .sequence import IntArray

DECAY = 0.05
"""A click counts ``exp(-age / decay)``, age the share of sessions that began after its own."""
PRIOR_CLICKS = 3.0
"""As many clicks, spread over the whole log, are added to each item's own."""
UNIT = 8.0
"""What the column is divided by, and a vector's number multiplied: each is then about as large as the others of its
kind, so that their int8 forms lose nothing. A power of two: it changes no sum."""


def trend(items: IntArray, offsets: IntArray, num_items: int, decay: float = DECAY) -> FloatArray:
    """From sessions laid end to end, the oldest first, ``items`` [C] and ``offsets`` [S + 1]: [V], 0 for an item that
    is clicked as often as ever or not at all, 1 where it is e times as often."""
    num_sessions = len(offsets) - 1
    session = np.repeat(np.arange(num_sessions), np.diff(offsets))
    weight = np.exp(-(num_sessions - 1 - session) / num_sessions / decay)
    usual = weight.mean() if len(weight) else 1.0  # of one click
    clicks, late = np.bincount(items, minlength=num_items), np.bincount(items, weights=weight, minlength=num_items)
    return np.asarray(np.log((late / usual + PRIOR_CLICKS) / (clicks + PRIOR_CLICKS)), dtype=np.float64)


def as_column(values: FloatArray) -> npt.NDArray[np.float32]:
    """[V] -> [V, 1], as it stands in the matrix."""
    return (values[:, None] / UNIT).astype(np.float32)
