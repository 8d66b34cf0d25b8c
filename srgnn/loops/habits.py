"""How sessions go on that look like this one (:mod:`srgnn.habits`)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..compiled import compiled
from . import IntArray, Items

NEW_SHARE = 0.1
"""Of the chance of items without a label in a session's shape: what the next one to get a label starts from."""

RARE = np.log(NEW_SHARE / (1 - NEW_SHARE))
"""Log odds of going back to an item that a session's shape does not tell apart from others clicked before it."""


class Habits(NamedTuple):
    """A tree of shapes, as srgnn.habits tells of it; S shapes of at most D clicks."""

    older: npt.NDArray[np.int32]
    """[S, D + 1]: the shape with one click more, by the label of its item, from 0 to D - 1; D: with nothing before it.
    0: there is none."""
    odds: Items
    """[S, D]: log odds of the item with this label being the next one, against all items without one."""


@compiled
def labelled(sequence: IntArray, labels: IntArray) -> int:
    """Writes the labels of the last clicks, the last one first, into ``labels`` [D], and how many these are: items are
    numbered from 0 as they come."""
    clicks, fresh = min(len(sequence), len(labels)), 0
    for age in range(clicks):
        labels[age] = fresh
        for later in range(age):
            if sequence[len(sequence) - 1 - later] == sequence[len(sequence) - 1 - age]:
                labels[age] = labels[later]
                break
        fresh += labels[age] == fresh
    return clicks


@compiled
def shape_of(older: npt.NDArray[np.int32], sequence: IntArray) -> int:
    """The largest known shape that a sequence ends in."""
    labels = np.empty(older.shape[1] - 1, np.int64)
    clicks, shape = labelled(sequence, labels), 0
    for age in range(clicks):
        larger = older[shape, labels[age]]
        if larger == 0:
            return shape
        shape = larger
    if len(sequence) == clicks and older[shape, len(labels)] > 0:
        shape = older[shape, len(labels)]
    return shape


@compiled
def paths(items: IntArray, lengths: IntArray, targets: IntArray, depth: int) -> tuple[npt.NDArray[np.int8], IntArray]:
    """Of B sequences laid end to end: the way to each one's shape [B, depth + 1], -1 where it is over, and the label of
    what came next [B]; ``depth``: an item without one."""
    ways, outcomes = np.full((len(lengths), depth + 1), -1, np.int8), np.full(len(lengths), depth)
    labels, start = np.empty(depth, np.int64), 0
    for example in range(len(lengths)):
        sequence = items[start : start + lengths[example]]
        clicks = labelled(sequence, labels)
        for age in range(clicks - 1, -1, -1):
            ways[example, age] = labels[age]
            if sequence[len(sequence) - 1 - age] == targets[example]:
                outcomes[example] = labels[age]
        if len(sequence) == clicks:
            ways[example, clicks] = depth
        start += lengths[example]
    return ways, outcomes
