"""Scores: products of int8 vectors, exact in int32 (:mod:`srgnn.scan`), and of floats in a fixed order."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import overload

from ..compiled import compiled
from . import Codes, FloatArray, Items, Offsets, Words
from .instructions import (
    FEWER,
    LOWEST,
    best_for_few_natively,
    best_for_fewer_natively,
    best_for_many_natively,
    products_natively,
    products_of_rows,
)
from .layout import BYTES, GROUP, LANES, ROWS, place_in_chunks

MANY = 4
"""Sessions from which on it is faster to take several of them at once: FEWER of them, where there are no more."""


def score_rows(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> None:
    """Rough scores of one session for rows from ``first`` on, as many as ``out`` [1, n] has room for; ``first`` and n
    multiples of ROWS. Of the type of ``out``; LOW or less, or -inf, where the item may not be answered."""
    raise TypeError("only compiled code can call this")


@overload(score_rows)
def _score_rows(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> Any:
    def of_codes(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> None:
        if len(asking.raised):
            products_natively(searched.items, asking.raised, searched.offsets, out, first, out.shape[1], session)
            return
        for row in range(0, out.shape[1], ROWS):
            made = products_of_rows(searched.items, first + row, asking.words, session)
            for i in range(ROWS):
                out[0, row + i] = made[i] - searched.offsets[first + row + i]

    def of_floats(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> None:
        vector = asking.words[session]
        for i in range(out.shape[1]):
            answered = first + i < len(searched.items) and not searched.offsets[first + i]
            out[0, i] = dot(searched.items[first + i], vector) if answered else -np.inf

    return of_codes if searched.types[0].dtype == types.int8 else of_floats


@compiled
def best_of_groups(
    items: Codes, offsets: Offsets, raised: Codes, words: Words, first_group: int, groups: int
) -> npt.NDArray[np.int32]:
    """The best rough score in each of some groups of :class:`Searched`, for :class:`Asking`: [b, groups].

    Not all of its scores: there are so many that to write them down, and to read them again, would take longer than
    to make those anew that matter.
    """
    if len(raised) >= MANY:
        return best_of_groups_for_many(items, offsets, raised, first_group, groups)
    bests = np.empty((max(len(raised), len(words)), groups), np.int32)
    if len(raised):
        best_for_few_natively(items, raised, offsets, bests, first_group * GROUP, groups * GROUP, 0)
        return bests
    for g in range(groups):
        for session in range(len(words)):
            best = LOWEST
            for row in range((first_group + g) * GROUP, (first_group + g + 1) * GROUP, ROWS):
                made = products_of_rows(items, row, words, session)
                for i in range(ROWS):
                    best = max(best, made[i] - offsets[row + i])
            bests[session, g] = best
    return bests


@compiled
def best_of_groups_for_many(
    items: Codes, offsets: Offsets, raised: Codes, first_group: int, groups: int
) -> npt.NDArray[np.int32]:
    """The same by VNNI, LANES sessions at a time: each item's numbers meet those of all of them at once."""
    b, d = len(raised), items.shape[1]
    bests, of_some = np.empty((b, groups), np.int32), np.empty(groups * LANES, np.int32)
    packed = np.empty((d + 3) // 4 * LANES * 4, np.int8)
    for start in range(0, b, LANES):
        some, packed[:] = min(LANES, b - start), 0
        lanes = LANES if some > FEWER else FEWER
        for j in range(d):
            to, there = place_in_chunks(j, d, 4), place_in_chunks(j, d, BYTES)
            for session in range(some):  # four numbers of each session side by side
                packed[(to // 4 * lanes + session) * 4 + to % 4] = raised[start + session, there]
        codes, out = packed.reshape(-1, LANES, 4), of_some.reshape(-1, LANES)  # for any lanes, in as much room
        if lanes == LANES:
            best_for_many_natively(items, codes, offsets, out, first_group * GROUP, groups * GROUP, 0)
        else:
            best_for_fewer_natively(items, codes, offsets, out, first_group * GROUP, groups * GROUP, 0)
        for g in range(groups):
            for session in range(some):
                bests[start + session, g] = of_some[g * lanes + session]
    return bests


@compiled
def largest(scores: Any) -> Any:
    """Of one group."""
    found = scores[0]
    for r in range(1, len(scores)):  # nothing else in this loop, or it is not compiled to vectors
        found = max(found, scores[r])
    return found


@compiled
def dot(item: Items, vector: FloatArray) -> float:
    """In float64, always added up in this order, so that equal items tie wherever they are scored."""
    a = b = c = e = 0.0  # four sums at a time: one alone waits for each addition
    for j in range(0, len(vector) - 3, 4):
        a += item[j] * vector[j]
        b += item[j + 1] * vector[j + 1]
        c += item[j + 2] * vector[j + 2]
        e += item[j + 3] * vector[j + 3]
    for j in range(len(vector) - len(vector) % 4, len(vector)):
        a += item[j] * vector[j]
    return (a + b) + (c + e)
