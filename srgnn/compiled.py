"""Loops over single numbers, compiled: what would be a hundred calls of numpy on a few numbers each.

Compiled functions let go of the interpreter, and add up in the order in which they are written, whatever the processor
and whatever else is in a batch: numba reorders no sum of floats. An argument of a new type (a list instead of an array,
int32 instead of int64, a mapped array instead of one that can be written to) compiles the function again, for half a
second; callers bring the same types each time.

Compiling takes seconds at every start. With numba's ``NUMBA_CACHE_DIR`` set, compiled code is kept there instead; numba
reads it back with pickle, so that must be a folder that nobody else can write to.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def compiled(function: Function) -> Function:
    """Compile ``function`` at its first call with each combination of argument types."""
    kept = bool(os.environ.get("NUMBA_CACHE_DIR"))
    made: Function = njit(function, nogil=True, error_model="numpy", cache=kept)
    return made


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
