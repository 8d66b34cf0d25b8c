"""The best of many: a heap, or all at once."""

import numpy as np

from ..compiled import compiled
from . import FloatArray, IntArray


@compiled
def offer(values: FloatArray, keys: IntArray, held: int, value: float, key: int) -> int:
    """Offer one entry to the best ``len(values)`` seen so far, of which there are ``held``; how many there are then.

    An entry is better with a larger value, of equal values with the smaller key. The worst is at place 0 (a heap).
    """
    if held < len(values):
        place = held
        while place > 0:
            above = (place - 1) // 2
            if not worse(value, key, values[above], keys[above]):
                break
            values[place], keys[place] = values[above], keys[above]
            place = above
        values[place], keys[place] = value, key
        return held + 1
    if held > 0 and worse(values[0], keys[0], value, key):
        settle(values, keys, held, value, key)
    return held


@compiled
def worse(value: float, key: int, than_value: float, than_key: int) -> bool:
    """Whether one entry is worse than another."""
    return value < than_value or (value == than_value and key > than_key)


@compiled
def settle(values: FloatArray, keys: IntArray, held: int, value: float, key: int) -> None:
    """Put an entry in the place of the worst of ``held`` and find the place where it belongs."""
    place = 0
    while 2 * place + 1 < held:
        below = 2 * place + 1
        if below + 1 < held and worse(values[below + 1], keys[below + 1], values[below], keys[below]):
            below += 1
        if not worse(values[below], keys[below], value, key):
            break
        values[place], keys[place] = values[below], keys[below]
        place = below
    values[place], keys[place] = value, key


@compiled
def order(values: FloatArray, keys: IntArray, held: int) -> None:
    """Sort the ``held`` entries of :func:`offer`, the best first."""
    for last in range(held - 1, 0, -1):
        value, key = values[last], keys[last]
        values[last], keys[last] = values[0], keys[0]
        settle(values, keys, last, value, key)


@compiled
def keep(largest: FloatArray, value: float) -> None:
    """One more of the ``largest`` values seen so far, a heap with the least of them at place 0."""
    if not value > largest[0]:
        return
    place, below = 0, 1
    while below < len(largest):
        if below + 1 < len(largest) and largest[below + 1] < largest[below]:
            below += 1
        if not largest[below] < value:
            break
        largest[place] = largest[below]
        place, below = below, 2 * below + 1
    largest[place] = value


@compiled
def k_largest(rows: IntArray, values: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Those with the ``k`` largest values of more, of equal ones the smaller rows first; in any order."""
    least = np.partition(values, len(values) - k)[len(values) - k]
    chosen, best = np.empty(k, np.int64), np.empty(k)
    held = 0
    for i in range(len(rows)):
        if values[i] > least:
            chosen[held], best[held] = rows[i], values[i]
            held += 1
    equal = np.sort(rows[values == least])
    chosen[held:], best[held:] = equal[: k - held], least
    return chosen, best
