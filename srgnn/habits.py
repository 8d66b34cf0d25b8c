"""How visitors of a log come back to what they clicked, learnt by counting.

A session graph forgets what a session looks like: that each item was clicked twice in a row, that it goes to and fro
between two, that it has just begun. Its *shape* is that and nothing else: its last clicks, the last one first, each
item labelled by a number as it comes, so that ``a b b`` and ``x y y`` are one shape, 0 0 1. Of all training examples
with the same shape some went on to the item with label 0, some to label 1, and so on, and the rest to an item that has
none. These odds of an item are evidence beside the model's score (:mod:`srgnn.blend`), whose weight is fitted.

Shapes are a tree: one click more, one level deeper. A shape is kept where it was met often enough, and its odds start
from those of the shape with one click less, as in text compression (PPM; Cleary and Witten 1984).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .loops import FloatArray
from .loops import habits as loops
from .loops.habits import NEW_SHARE, RARE, Habits
from .sequence import IntArray

DEPTH = 10
"""Clicks of a shape, at most."""
MET = 20
"""Examples that a shape is kept for."""
PRIOR = 8.0
"""Examples that the shape with one click less counts as."""

NO_HABITS = Habits(np.zeros((1, 1), np.int32), np.zeros((1, 0), np.float32))
"""All items are rare."""


class _Level(NamedTuple):
    """S shapes of as many clicks."""

    first: int
    """Number of the first of them in the tree."""
    older: npt.NDArray[np.int32]
    """[S, D + 1], as in Habits."""
    chances: FloatArray
    """[S, D + 1]: of each label, then of all items without one."""
    labels: IntArray
    """[S]: how many there are."""


def learn(items: IntArray, lengths: IntArray, targets: IntArray) -> Habits:
    """From B non-empty sequences laid end to end, ``items`` [C] and ``lengths`` [B], and what came next [B]."""
    ways, outcomes = loops.paths(items, lengths, targets, DEPTH)
    levels = [_level(0, np.eye(DEPTH + 1)[DEPTH:], np.zeros(1, np.int64))]  # nothing clicked, so nothing has a label
    examples, shape = np.arange(len(lengths)), np.zeros(len(lengths), np.int64)  # shape: its place in the last level
    while len(levels) <= DEPTH + 1:
        step = ways[examples, len(levels) - 1]
        edges, place = _often(np.where(step < 0, -1, shape * (DEPTH + 1) + step))
        if not len(edges):
            break
        examples, shape = examples[place >= 0], place[place >= 0]
        levels.append(_next_level(levels[-1], edges, _counted(shape, outcomes[examples], len(edges))))
    older, odds = (np.concatenate(parts) for parts in zip(*((each.older, _odds(each)) for each in levels), strict=True))
    return Habits(older, odds)


def _level(first: int, chances: FloatArray, labels: IntArray) -> _Level:
    return _Level(first, np.zeros(chances.shape, np.int32), chances, labels)


def _often(keys: IntArray) -> tuple[IntArray, IntArray]:
    """The distinct keys from 0 on that are met often enough, rising; where each key stands among them, -1: nowhere."""
    key, which, times = np.unique(keys, return_inverse=True, return_counts=True)
    kept = (times >= MET) & (key >= 0)
    return key[kept], np.where(kept, np.cumsum(kept) - 1, -1)[which]


def _counted(shape: IntArray, outcomes: IntArray, shapes: int) -> FloatArray:
    """Examples of each shape and outcome [S, D + 1]."""
    found = np.bincount(shape * (DEPTH + 1) + outcomes, minlength=shapes * (DEPTH + 1))
    return found.reshape(shapes, DEPTH + 1).astype(np.float64)


def _next_level(above: _Level, edges: IntArray, found: FloatArray) -> _Level:
    """Shapes with one click more, entered in the level above: ``edges`` [S] are a place in it times D + 1 and the
    label of that click, ``found`` [S, D + 1] what came next."""
    place, label = np.divmod(edges, DEPTH + 1)
    first = above.first + len(above.labels)
    above.older[place, label] = first + np.arange(len(edges))
    chances, labels = above.chances[place], above.labels[place]
    fresh = np.flatnonzero((label == labels) & (label < DEPTH))
    labels[fresh] += 1
    new = NEW_SHARE * chances[fresh, DEPTH]
    chances[fresh, label[fresh]] = new
    chances[fresh, DEPTH] -= new
    told = np.where(_labelled(labels), found, 0.0)
    told[:, DEPTH] += found.sum(1) - told.sum(1)
    return _level(first, (told + PRIOR * chances) / (found.sum(1, keepdims=True) + PRIOR), labels)


def _labelled(labels: IntArray) -> npt.NDArray[np.bool_]:
    """[S, D + 1]: whether a shape with so many ``labels`` [S] has this one."""
    return np.arange(DEPTH + 1) < labels[:, None]


def _odds(level: _Level) -> npt.NDArray[np.float32]:
    """[S, D]."""
    chances = level.chances
    with np.errstate(divide="ignore"):  # without a label there is no chance, and none is asked for
        odds = np.log(chances[:, :DEPTH] / chances[:, DEPTH:])
    return np.where(_labelled(level.labels)[:, :DEPTH], odds, RARE).astype(np.float32)


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
