"""Where a number stands: a hash table."""

import numpy as np

from ..compiled import compiled
from . import IntArray
from .heap import offer, order


@compiled
def empty_table(entries: int) -> IntArray:
    """A hash table with room for so many: where each stands in an array of theirs, -1 for none."""
    size = 8
    while size < 2 * entries:
        size *= 2
    return np.full(size, -1)


@compiled
def slot_of(table: IntArray, keys: IntArray, key: int | np.int64) -> int:
    """The slot of ``key``, or the free one where it belongs; ``keys`` are those that the table tells the places of."""
    slot = int(key) * 0x9E3779B1 & len(table) - 1  # Knuth's multiplier; a product past 2 ** 63 wraps, which is as good
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = slot + 1 & len(table) - 1
    return slot


@compiled
def distinct(keys: IntArray, found: IntArray) -> tuple[IntArray, IntArray]:
    """The distinct keys, rising, in the first places of ``found``, and a table of where each is."""
    nothing = np.zeros(len(keys))
    table = empty_table(len(keys))
    held = 0
    for key in keys:
        slot = slot_of(table, found, key)
        if table[slot] < 0:
            table[slot], found[held] = held, key
            held += 1
    for i in range(held):  # with equal values, keys are sorted
        offer(nothing[:held], found, i, 0.0, found[i])
    order(nothing, found, held)
    table[:] = -1
    for i in range(held):
        table[slot_of(table, found, found[i])] = i
    return found[:held], table
