"""How items and sessions are laid out in memory, so that their products are made many at a time."""

from typing import Any, NamedTuple

import numpy as np

from ..compiled import compiled
from . import Codes, IntArray, Offsets, Words

GROUP = 32
"""Rows a group; fixed by the artifact's format."""

LANES = 16
"""Numbers multiplied at once without VNNI, and the narrowest vectors that are taken; sessions at once with it."""

BYTES = 64
"""Numbers multiplied at once with it, and the narrowest vectors for which it is used."""

ROWS = 4
"""Items at once: one alone waits for each addition. What is multiplied comes in multiples of it."""

NEVER = 1 << 30
"""Taken off the score of an item that may not be answered: more than any product of vectors of int8."""

LOW = -(2.0**29)
"""No answer has so low a score of whole numbers."""


class Searched(NamedTuple):
    """The catalogue, as rough scores are made of it."""

    items: Any
    """[R, d] in int8, R a multiple of GROUP; or [V, d] in float32."""
    offsets: Offsets
    """[R]: what is taken off the products of each row, as :func:`offsets_of` says."""


class Asking(NamedTuple):
    """b session vectors, laid out for products with items."""

    raised: Codes
    """[b, BYTES * chunks], for VNNI, which takes one side for numbers from 0 to 255: 128 more than the codes; else
    [0, 0]."""
    words: Any
    """[b, LANES * chunks] in int16 without it, else [0, 0]; or [b, d] in float32."""


@compiled
def asking(codes: Codes, native: bool) -> tuple[Codes, Words]:
    """The fields of :class:`Asking`, of codes [b, d]."""
    if native:
        return in_chunks(codes, BYTES, -128, np.int8(0)), np.empty((0, 0), np.int16)
    return np.empty((0, 0), np.int8), in_chunks(codes, LANES, 0, np.int16(0))


@compiled
def in_chunks(codes: Codes, lanes: int, flipped: int, zero: Any) -> Any:
    """[b, d] -> [b, lanes * chunks] of the type of ``zero``, each with its ``flipped`` bits flipped: the last chunk is
    for the *last* numbers of an item, with zeros for those that a chunk before it has multiplied already; so no chunk
    is a part of one."""
    b, d = codes.shape
    chunks = (d + lanes - 1) // lanes
    laid_out = np.full((b, lanes * chunks), zero)
    for session in range(b):
        for j in range(d):
            laid_out[session, place_in_chunks(j, d, lanes)] = codes[session, j] ^ flipped
    return laid_out


@compiled
def place_in_chunks(j: int, d: int, lanes: int) -> int:
    """Where :func:`in_chunks` puts number ``j`` of ``d``."""
    chunks = (d + lanes - 1) // lanes
    return j if j < lanes * (chunks - 1) else lanes * chunks - d + j


@compiled
def offsets_of(items: Codes, unanswerable: IntArray, native: bool) -> Offsets:
    """What is to be taken off products with items [R, d]: what they are too large by where codes are raised, and NEVER
    for what may not be answered: [R]."""
    rows, d = items.shape
    offsets = np.zeros(rows, np.int32)
    if native:
        for row in range(rows):
            total = 0
            for j in range(d):
                total += items[row, j]
            offsets[row] = 128 * total
    for row in unanswerable:
        offsets[row] += NEVER
    return offsets
