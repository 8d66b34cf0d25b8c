"""From rough scores to the best k: which items are within reach, and their order by exact scores.

Inner loops of :mod:`srgnn.catalogue`. Shape letters: b sessions, G groups of GROUP rows in a block, M pairs of a
session and a row.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .compiled import FloatArray, IntArray, compiled, offer, order

Rough = npt.NDArray[Any]
"""int32 or float32: unscaled scores, the type's lowest number where there is no answer."""
Items = npt.NDArray[np.float32]

BONUS_ROUNDINGS = 2.0**-40
"""Relative error of adding a bonus in units of its session, with room to spare."""


class Pairs(NamedTuple):
    """M pairs of a session in the batch and a catalogue row."""

    sessions: IntArray
    """[M]."""
    rows: IntArray
    """[M]."""
    bonuses: FloatArray
    """[M]: what the session adds to the item's score."""


class Block(NamedTuple):
    """Rough scores of b sessions for G groups of rows."""

    rough: Rough
    """[b, G, GROUP]: times the group's scale and the session's unit the score, give or take the error."""
    best: Rough
    """[b, G]: the largest of each group."""
    scales: FloatArray
    """[G]."""
    error: FloatArray
    """[b, G], in the session's unit."""
    first_row: int
    low: float
    """What ``rough`` holds where there is no answer."""


class Floors(NamedTuple):
    """What the best k of each session do not fall below: the k largest lower bounds of scores seen so far."""

    bounds: FloatArray
    """[b, k], as :func:`srgnn.compiled.offer` keeps them."""
    keys: IntArray
    """[b, k]: nothing; bounds that are equal are alike."""
    held: IntArray
    """[b]."""

    @classmethod
    def empty(cls, sessions: int, k: int) -> "Floors":
        """Before the first block."""
        return cls(np.empty((sessions, k)), np.zeros((sessions, k), np.int64), np.zeros(sessions, np.int64))


@compiled
def forbid(rough: Rough, first_row: int, unanswerable: IntArray, excluded: Pairs, low: float) -> None:
    """Write ``low`` over what may not be answered: ``unanswerable`` rows (rising) everywhere, and ``excluded``."""
    group = rough.shape[2]
    inside = rough.shape[1] * group
    for i in range(np.searchsorted(unanswerable, first_row), len(unanswerable)):
        row = unanswerable[i] - first_row
        if row >= inside:
            break
        for session in range(len(rough)):
            rough[session, row // group, row % group] = low
    for i in range(len(excluded.rows)):
        row = excluded.rows[i] - first_row
        if 0 <= row < inside:
            rough[excluded.sessions[i], row // group, row % group] = low


@compiled
def within_reach(
    block: Block, bonuses: Pairs, units: FloatArray, floors: Floors
) -> tuple[IntArray, IntArray, FloatArray]:
    """Every pair of a block that may be among the best k of its session, as Pairs.

    An item is no better than its rough score plus the error; the k-th largest of all rough scores less their error is a
    floor that the best k do not fall below. ``bonuses`` of a session are divided by its unit, ``units`` [b].
    """
    upper = take_out(block, bonuses, units, floors)
    raise_floors(block, floors)
    sessions, rows, added = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64)
    found = 0
    for i in range(len(upper)):
        if upper[i] >= floor_of(floors, bonuses.sessions[i]) and upper[i] != -np.inf:
            sessions, rows, added = longer(sessions, rows, added, found)
            sessions[found], rows[found], added[found] = bonuses.sessions[i], bonuses.rows[i], bonuses.bonuses[i]
            found += 1
    for session in range(len(block.rough)):
        floor = floor_of(floors, session)
        for g in range(len(block.scales)):
            scale, error = block.scales[g], block.error[session, g]
            if block.best[session, g] == block.low or block.best[session, g] * scale + error < floor:
                continue
            for r in range(block.rough.shape[2]):
                rough = block.rough[session, g, r]
                if rough != block.low and rough * scale + error >= floor:
                    sessions, rows, added = longer(sessions, rows, added, found)
                    sessions[found], rows[found] = session, block.first_row + g * block.rough.shape[2] + r
                    added[found] = 0.0
                    found += 1
    return sessions[:found], rows[:found], added[:found]


@compiled
def take_out(block: Block, bonuses: Pairs, units: FloatArray, floors: Floors) -> FloatArray:
    """Upper bounds of the scores of items with a bonus [M], -inf where there is no answer or the item is of another
    block; the floors count them, and in the block there is no answer for them any more."""
    upper = np.full(len(bonuses.rows), -np.inf)
    group = block.rough.shape[2]
    for i in range(len(upper)):
        session, row = bonuses.sessions[i], bonuses.rows[i] - block.first_row
        g, r = row // group, row % group
        if row < 0 or g >= len(block.scales) or block.rough[session, g, r] == block.low:
            continue
        rough = block.rough[session, g, r]
        bonus = bonuses.bonuses[i] / units[session]
        margin = block.error[session, g] + abs(bonus) * BONUS_ROUNDINGS
        upper[i] = rough * block.scales[g] + bonus + margin
        raise_floor(floors, session, rough * block.scales[g] + bonus - margin)
        block.rough[session, g, r] = block.low
        if rough == block.best[session, g]:
            block.best[session, g] = block.rough[session, g].max()
    return upper


@compiled
def raise_floors(block: Block, floors: Floors) -> None:
    """A group stands in for its items with its best one, as long as there are k groups."""
    groups_are_enough = len(block.scales) >= floors.bounds.shape[1]
    for session in range(len(block.rough)):
        for g in range(len(block.scales)):
            scale, error = block.scales[g], block.error[session, g]
            if groups_are_enough:
                if block.best[session, g] != block.low:
                    raise_floor(floors, session, block.best[session, g] * scale - error)
                continue
            for rough in block.rough[session, g]:
                if rough != block.low:
                    raise_floor(floors, session, rough * scale - error)


@compiled
def raise_floor(floors: Floors, session: int, bound: float) -> None:
    """One more lower bound of a score."""
    held = floors.held[session]
    if held < floors.bounds.shape[1] or bound > floors.bounds[session, 0]:
        floors.held[session] = offer(floors.bounds[session], floors.keys[session], held, bound, 0)


@compiled
def floor_of(floors: Floors, session: int) -> float:
    """-inf before k bounds are known."""
    return floors.bounds[session, 0] if floors.held[session] == floors.bounds.shape[1] else -np.inf


@compiled
def longer(sessions: IntArray, rows: IntArray, added: FloatArray, needed: int) -> tuple[IntArray, IntArray, FloatArray]:
    """The same with room for one more than ``needed``."""
    if needed < len(rows):
        return sessions, rows, added
    return (
        np.concatenate((sessions, np.empty_like(sessions))),
        np.concatenate((rows, np.empty_like(rows))),
        np.concatenate((added, np.empty_like(added))),
    )


@compiled
def best_rows(items: Items, vectors: FloatArray, pairs: Pairs, k: int) -> tuple[IntArray, FloatArray]:
    """The k best of each session by (exact score falling, row rising), their scores; -1 and -inf for none: [b, k]."""
    rows, scores = np.full((len(vectors), k), -1), np.full((len(vectors), k), -np.inf)
    held = np.zeros(len(vectors), np.int64)
    for i in range(len(pairs.rows)):
        session, row = pairs.sessions[i], pairs.rows[i]
        score = product(items[row], vectors[session]) + pairs.bonuses[i]
        held[session] = offer(scores[session], rows[session], held[session], score, row)
    for session in range(len(vectors)):
        order(scores[session], rows[session], held[session])
    return rows, scores


@compiled
def exact_scores(items: Items, rows: IntArray, vectors: FloatArray, sessions: IntArray) -> FloatArray:
    """Scores of items [V, d] for vectors [b, d], of M pairs: [M]."""
    scores = np.empty(len(rows))
    for i in range(len(rows)):
        scores[i] = product(items[rows[i]], vectors[sessions[i]])
    return scores


@compiled
def product(item: Items, vector: FloatArray) -> float:
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
