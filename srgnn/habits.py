"""How visitors of a log come back to what they clicked, learnt by counting.

A session graph forgets what a session looks like: that each item was clicked twice in a row, that it goes to and fro
between two, that it has just begun. Its *shape* is that and nothing else: its last clicks, the last one first, each
item named by a number as it comes, so that ``a b b`` and ``x y y`` are one shape, 0 0 1. Of all training examples with
the same shape some went on to the item with number 0, some to number 1, and so on, and the rest to an item that has no
number. These odds of an item are evidence beside the model's score (:mod:`srgnn.blend`); whose weight is fitted.

Shapes are a tree: one click more, one level deeper. A shape is kept where it was met often enough, and its odds start
from those of the shape with one click less, as in text compression (PPM; Cleary and Witten 1984).
"""

import numpy as np
import numpy.typing as npt

from . import loops
from .loops import RARE, FloatArray, Habits
from .sequence import IntArray

DEPTH = 10
"""Clicks of a shape, at most."""
MET = 20
"""Examples that a shape is kept for."""
PRIOR = 8.0
"""Examples that the shape with one click less counts as."""
NEW_SHARE = 0.1
"""Of the chance of items without a number: what the next one to get a number starts from."""

NO_HABITS = Habits(np.zeros((1, 1), np.int32), np.zeros((1, 0), np.float32))
"""All items are rare."""


def learn(items: IntArray, lengths: IntArray, targets: IntArray) -> Habits:
    """From B non-empty sequences laid end to end, ``items`` [C] and ``lengths`` [B], and what came next [B]."""
    ways, outcomes = loops.paths(items, lengths, targets, DEPTH)
    shape, going_on = np.zeros(len(lengths), np.int64), np.arange(len(lengths))
    older = [np.zeros((1, DEPTH + 1), np.int32)]
    chances, numbered = [_counted(shape, outcomes, 1)], [np.zeros(1, np.int64)]
    chances[0][:] = np.eye(DEPTH + 1)[DEPTH]  # nothing has a number yet
    first, after = 0, 1  # shapes of the level above
    for level in range(DEPTH + 1):
        going_on = going_on[ways[going_on, level] >= 0]
        edges = shape[going_on] * (DEPTH + 1) + ways[going_on, level]
        edge, which, times = np.unique(edges, return_inverse=True, return_counts=True)
        kept = times >= MET
        going_on, which = going_on[kept[which]], (np.cumsum(kept) - 1)[which[kept[which]]]
        above, label = np.divmod(edge[kept], DEPTH + 1)
        if not len(above):
            break
        older[-1][above - first, label] = after + np.arange(len(above))
        older.append(np.zeros((len(above), DEPTH + 1), np.int32))
        shape[going_on] = after + which
        found = _counted(which, outcomes[going_on], len(above))
        known = numbered[-1][above - first]
        fresh = (label == known) & (label < DEPTH)
        numbered.append(known + fresh)
        chances.append(_smoothed(chances[-1][above - first], np.where(fresh, label, DEPTH), found, numbered[-1]))
        first, after = after, after + len(above)
    return Habits(np.concatenate(older), _odds(np.concatenate(chances), np.concatenate(numbered)))


def _counted(shape: IntArray, outcomes: IntArray, shapes: int) -> FloatArray:
    """Examples of each shape and outcome [S, D + 1]."""
    found = np.bincount(shape * (DEPTH + 1) + outcomes, minlength=shapes * (DEPTH + 1))
    return found.reshape(shapes, DEPTH + 1).astype(np.float64)


def _smoothed(before: FloatArray, fresh: IntArray, found: FloatArray, numbered: IntArray) -> FloatArray:
    """Chances of each outcome [S, D + 1]: those of the shape above, ``before`` the item with number ``fresh`` (D: none)
    had it, and what was ``found`` among the ``numbered``."""
    chances, new = before.copy(), NEW_SHARE * before[:, DEPTH]
    each = np.flatnonzero(fresh < DEPTH)
    chances[each, fresh[each]] = new[each]
    chances[each, DEPTH] -= new[each]
    told = np.where(_has_number(numbered), found, 0.0)
    told[:, DEPTH] += found.sum(1) - told.sum(1)
    smoothed: FloatArray = (told + PRIOR * chances) / (found.sum(1, keepdims=True) + PRIOR)
    return smoothed


def _has_number(numbered: IntArray) -> npt.NDArray[np.bool_]:
    """[S, D + 1]; of items without one nothing is True."""
    return np.arange(DEPTH + 1) < np.minimum(numbered, DEPTH)[:, None]


def _odds(chances: FloatArray, numbered: IntArray) -> npt.NDArray[np.float32]:
    """[S, D]."""
    with np.errstate(divide="ignore"):  # of items without a number, which are rare
        odds = np.log(chances[:, :DEPTH] / chances[:, DEPTH:])
    return np.where(_has_number(numbered)[:, :DEPTH], odds, RARE).astype(np.float32)


def fits(habits: Habits) -> bool:
    """Whether every way through the tree stays inside and ends."""
    older, odds = habits
    shapes = np.arange(len(older))[:, None]
    return (
        len(older) == len(odds) >= 1
        and older.shape[1] == odds.shape[1] + 1
        and bool(((older == 0) | ((older > shapes) & (older < len(older)))).all())
        and bool(np.isfinite(odds).all())
    )
