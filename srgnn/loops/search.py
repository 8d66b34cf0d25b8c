"""From rough scores to the best k (:mod:`srgnn.catalogue`)."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..compiled import compiled
from . import Codes, FloatArray, IntArray, Items, Offsets, Rough
from .evidence import Pairs
from .fetch import fetch
from .heap import keep, offer, order
from .layout import GROUP, ROWS, Asking, Searched
from .products import dot, largest, score_rows

BONUS_ROUNDINGS = 2.0**-40
"""Relative error of adding a bonus in units of its session, with room to spare."""

ENOUGH = 8
"""Times k: among so many the k largest of all are rarely two that meet (:func:`folded`)."""

AHEAD = 8
"""Pairs: one's item takes longer to come from memory than to be scored (docs/log.md)."""


class Groups(NamedTuple):
    """What scores of G groups of rows are worth, and how far off they may be."""

    scales: FloatArray
    """[G]: a rough score times this is the score in the session's unit."""
    longest: FloatArray
    """[G]: length of the longest item."""
    residual: FloatArray
    """[G]: length of the most that rounding took from an item."""


class Margins(NamedTuple):
    """Of b sessions: a score in a group is off by ``on_longest * longest + on_residual * residual`` at most."""

    on_longest: FloatArray
    """[b]."""
    on_residual: FloatArray
    """[b]."""
    units: FloatArray
    """[b]: a rough score times the group's scale times this is the score of the model."""


class Block(NamedTuple):
    """The best rough score in each of G groups for b sessions, and what single ones are made of."""

    bests: Rough
    """[b, G]."""
    groups: Groups
    first_row: int
    low: float
    """No answer has a rough score that is not above it."""
    searched: Searched
    """The whole catalogue."""
    asking: Asking


@compiled
def rounded(vectors: FloatArray, roundings: float) -> tuple[npt.NDArray[np.int8], FloatArray, FloatArray, FloatArray]:
    """Session vectors [b, d] as int8, and how far off scores of these are, the fields of :class:`Margins`; with
    ``roundings``, the relative error of scores in float64."""
    b, d = vectors.shape
    codes, length, rest, unit = np.empty((b, d), np.int8), np.empty(b), np.empty(b), np.empty(b)
    for session in range(b):
        unit[session] = max(np.abs(vectors[session]).max() / 127.0, 1e-300)
        squares = rests = 0.0
        for j in range(d):
            scaled = vectors[session, j] / unit[session]  # vector = unit * (code + rest)
            code = np.rint(scaled)
            codes[session, j] = np.int8(code)
            squares += code * code
            rests += (scaled - code) * (scaled - code)
        length[session] = np.sqrt(squares)
        rest[session] = np.sqrt(rests) + roundings * length[session]
    return codes, rest, length, unit


@compiled
def best_of_block(
    bests: Rough,
    scales: FloatArray,
    longest: FloatArray,
    residual: FloatArray,
    first_row: int,
    low: float,
    searched_items: Any,
    offsets: Offsets,
    raised: Codes,
    words: Any,
    on_longest: FloatArray,
    on_residual: FloatArray,
    units: FloatArray,
    excluded_sessions: IntArray,
    excluded_rows: IntArray,
    excluded_bonuses: FloatArray,
    bonus_sessions: IntArray,
    bonus_rows: IntArray,
    bonuses: FloatArray,
    floors: FloatArray,
    items: Items,
    vectors: FloatArray,
) -> tuple[IntArray, FloatArray, int]:
    """The k best rows of a :class:`Block` for each session, their exact scores, as :func:`best_rows`, and how many were
    scored exactly. The rest is :class:`Groups`, :class:`Searched`, :class:`Asking`, :class:`Margins`, :class:`Pairs`
    twice, field by field, and :func:`within_reach` tells of it."""
    searched, asking = Searched(searched_items, offsets), Asking(raised, words)
    block = Block(bests, Groups(scales, longest, residual), first_row, low, searched, asking)
    margins = Margins(on_longest, on_residual, units)
    excluded = Pairs(excluded_sessions, excluded_rows, excluded_bonuses)
    reach = within_reach(block, margins, excluded, Pairs(bonus_sessions, bonus_rows, bonuses), floors)
    rows, scores = best_rows(items, vectors, reach, floors.shape[1])
    return rows, scores, len(reach.rows)


@compiled
def within_reach(block: Block, margins: Margins, excluded: Pairs, bonuses: Pairs, floors: FloatArray) -> Pairs:
    """Every pair of a block that may be among the best k of its session, without those ``excluded``. Pairs are in the
    order of sessions.

    An item is no better than its rough score plus the error; the k-th largest of rough scores less their error is a
    floor that the best k do not fall below: ``floors`` [b, k] are the k largest so far, as :func:`keep` keeps them.
    """
    size = block.bests.shape[1]
    own = Own(np.zeros(size * GROUP, np.bool_), np.zeros(size, np.bool_))
    sessions, rows, added = empty_pairs(len(bonuses.rows) + 64 * len(block.bests))
    most, error, with_bonus = np.empty(size), np.empty(size), np.empty(len(bonuses.rows))
    least, places = np.empty(size), np.empty(size, np.int64)
    found = stop = stop_excluded = 0
    for session in range(len(block.bests)):
        worth(block, session, margins.on_longest[session], margins.on_residual[session], most, error, own)
        start, start_excluded = stop, stop_excluded
        while stop_excluded < len(excluded.rows) and excluded.sessions[stop_excluded] == session:
            take_out(own, excluded.rows[stop_excluded] - block.first_row)
            stop_excluded += 1
        while stop < len(with_bonus) and bonuses.sessions[stop] == session:
            there = take_out(own, bonuses.rows[stop] - block.first_row)
            with_bonus[stop] = bonuses.bonuses[stop] / margins.units[session] if there else -np.inf
            stop += 1
        raise_floor(block, session, error, floors[session], most, own, least)
        raise_floor_by_bonuses(
            block, session, error, floors[session], most, bonuses.rows[start:stop], with_bonus[start:stop]
        )
        floor = floors[session, 0]
        for i in range(start, stop):
            if with_bonus[i] >= floor and with_bonus[i] != -np.inf:
                sessions[found], rows[found], added[found] = session, bonuses.rows[i], bonuses.bonuses[i]
                found += 1
        promising = above(most, error, floor, places)
        room = found + GROUP * promising + len(with_bonus)
        if room > len(rows):
            more = empty_pairs(room)
            sessions, rows = np.append(sessions, more[0]), np.append(rows, more[1])
            added = np.append(added, more[2])
        first, found = found, look_into(block, session, error, floor, places[:promising], own, rows, found)
        sessions[first:found] = session
        for i in range(start_excluded, stop_excluded):
            put_back(own, excluded.rows[i] - block.first_row)
        for i in range(start, stop):
            put_back(own, bonuses.rows[i] - block.first_row)
    return Pairs(sessions[:found], rows[:found], added[:found])


@compiled
def empty_pairs(room: int | np.integer[Any]) -> tuple[IntArray, IntArray, FloatArray]:
    """The fields of Pairs, to be written to; without bonuses."""
    return np.empty(room, np.int64), np.empty(room, np.int64), np.zeros(room)


class Own(NamedTuple):
    """What of a block one session sees otherwise than the next: items that it may not be answered, or has a bonus for.

    A group that holds one still tells how good the others may be, but no longer how good one of them is.
    """

    rows: npt.NDArray[np.bool_]
    """[G * GROUP]."""
    groups: npt.NDArray[np.bool_]
    """[G]: also those without any answer."""


@compiled
def take_out(own: Own, row: int) -> bool:
    """Whether a row of the block was there until now."""
    if row < 0 or row >= len(own.rows) or own.rows[row]:
        return False
    own.rows[row] = own.groups[row // GROUP] = True
    return True


@compiled
def put_back(own: Own, row: int) -> None:
    """For the next session."""
    if 0 <= row < len(own.rows):
        own.rows[row] = False


@compiled
def worth(
    block: Block, session: int, on_longest: float, on_residual: float, most: FloatArray, error: FloatArray, own: Own
) -> None:
    """The best scores of a session's groups in its unit, how far off they may be, [G] each, and which are of none."""
    bests, (scales, longest, residual) = block.bests[session], block.groups
    for g in range(len(bests)):
        most[g] = bests[g] * scales[g]
        error[g] = on_longest * longest[g] + on_residual * residual[g]
        own.groups[g] = bests[g] <= block.low


@compiled
def raise_floor(
    block: Block, session: int, error: FloatArray, floors: FloatArray, best: FloatArray, own: Own, least: FloatArray
) -> None:
    """Count what a session may be answered from this block. Where there are k groups of which nothing was taken out,
    the ``best`` of each [G] stands in for all; ``error`` [G]. ``least`` [G] is written over."""
    for g in range(len(best)):
        least[g] = -np.inf if own.groups[g] else best[g] - error[g]
    left = folded(least, ENOUGH * len(floors))
    there = 0
    for value in left:
        there += value > -np.inf
    if there >= len(floors):
        for value in left:
            keep(floors, value)
        return
    scores, searched, asking = np.empty((1, GROUP), block.bests.dtype), block.searched, block.asking
    for g in range(len(best)):
        score_rows(searched, asking, session, block.first_row + g * GROUP, scores)
        for r in range(GROUP):
            if scores[0, r] > block.low and not own.rows[g * GROUP + r]:
                keep(floors, scores[0, r] * block.groups.scales[g] - error[g])


@compiled
def folded(values: FloatArray, enough: int) -> FloatArray:
    """The larger of each two until there would be fewer than ``enough``: their k largest are of the k largest of all,
    but for the few that met a larger one. ``values`` are written over, in vectors, where a heap takes one by one."""
    left = len(values)
    while left // 2 >= enough:
        half = (left + 1) // 2
        for i in range(left - half):
            values[i] = values[i] if values[i] > values[half + i] else values[half + i]
        left = half
    return values[:left]


@compiled
def raise_floor_by_bonuses(
    block: Block,
    session: int,
    error: FloatArray,
    floors: FloatArray,
    best: FloatArray,
    rows: IntArray,
    bonuses: FloatArray,
) -> None:
    """Count the ``rows`` with ``bonuses`` in the session's unit, and write there the most that each may score: -inf
    where it may not be answered, or would be below the floor even as the ``best`` of its group, as most would."""
    scores, searched, asking = np.empty((1, ROWS), block.bests.dtype), block.searched, block.asking
    for i in range(len(rows)):
        bonus, inside = bonuses[i], rows[i] - block.first_row
        if bonus == -np.inf:
            continue
        g, bonuses[i] = inside // GROUP, -np.inf
        margin = error[g] + abs(bonus) * BONUS_ROUNDINGS
        if best[g] + bonus + margin < floors[0]:
            continue
        score_rows(searched, asking, session, rows[i] - inside % ROWS, scores)
        if scores[0, inside % ROWS] > block.low:
            score = scores[0, inside % ROWS] * block.groups.scales[g] + bonus
            keep(floors, score - margin)
            bonuses[i] = score + margin


@compiled
def above(best: FloatArray, error: FloatArray, floor: float, places: IntArray) -> int:
    """Write to ``places`` those of the groups that may reach the ``floor`` [G]; how many there are."""
    found = 0
    for g in range(len(best)):
        places[found] = g
        found += best[g] + error[g] >= floor  # without a branch that could not be foreseen
    return found


@compiled
def look_into(
    block: Block,
    session: int,
    error: FloatArray,
    floor: float,
    groups: IntArray,
    own: Own,
    rows: IntArray,
    found: int,
) -> int:
    """Write to ``rows``, of which ``found`` are written, those of some ``groups`` that may be above the ``floor``; how
    many there are then."""
    scores, searched, asking = np.empty((1, GROUP), block.bests.dtype), block.searched, block.asking
    for i in range(len(groups)):
        g = groups[i]
        if block.bests[session, g] <= block.low:
            continue
        first = block.first_row + g * GROUP
        score_rows(searched, asking, session, first, scores)
        for r in range(GROUP):
            enough = scores[0, r] * block.groups.scales[g] + error[g] >= floor
            rows[found] = first + r
            found += enough & (scores[0, r] > block.low) & ~own.rows[g * GROUP + r]
    return found


@compiled
def best_of_scores(rough: Items, searched_rows: int, unanswerable: IntArray) -> Items:
    """The best in each group of scores [b, R] of float32, of which ``searched_rows`` are items: [b, R / GROUP]; -inf is
    written over those of others and of what may not be answered."""
    rough[:, searched_rows:] = -np.inf
    bests = np.empty((len(rough), rough.shape[1] // GROUP), np.float32)
    for session in range(len(rough)):
        for row in unanswerable:
            rough[session, row] = -np.inf
        for g in range(bests.shape[1]):
            bests[session, g] = largest(rough[session, g * GROUP : (g + 1) * GROUP])
    return bests


@compiled
def best_rows(items: Items, vectors: FloatArray, pairs: Pairs, k: int) -> tuple[IntArray, FloatArray]:
    """The k best of each session by (exact score falling, row rising), their scores; -1 and -inf for none: [b, k]."""
    rows, scores = np.full((len(vectors), k), -1), np.full((len(vectors), k), -np.inf)
    held = np.zeros(len(vectors), np.int64)
    for i in range(len(pairs.rows)):
        if i + AHEAD < len(pairs.rows):
            fetch(items, pairs.rows[i + AHEAD], 1)
        session, row = pairs.sessions[i], pairs.rows[i]
        score = dot(items[row], vectors[session]) + pairs.bonuses[i]
        held[session] = offer(scores[session], rows[session], held[session], score, row)
    for session in range(len(vectors)):
        order(scores[session], rows[session], held[session])
    return rows, scores


@compiled
def exact_scores(items: Items, rows: IntArray, vectors: FloatArray, sessions: IntArray) -> FloatArray:
    """Scores of items [V, d] for vectors [b, d], of M pairs: [M]."""
    scores = np.empty(len(rows))
    for i in range(len(rows)):
        scores[i] = dot(items[rows[i]], vectors[sessions[i]])
    return scores


@compiled
def counted(scores: Items, items: int, low: Items, high: Items) -> tuple[IntArray, IntArray]:
    """Of the first ``items`` scores of each session [b, >= items]: how many are above ``high`` [b], how many are
    ``low`` [b] or more: [b] each."""
    above, from_low = np.empty(len(scores), np.int64), np.empty(len(scores), np.int64)
    for session in range(len(scores)):
        bottom, top = low[session], high[session]
        more = reached = np.int32(0)  # of the scores' width, so that both are counted in vectors
        for item in range(items):
            score = scores[session, item]
            more = np.int32(more + np.int32(score > top))
            reached = np.int32(reached + np.int32(score >= bottom))
        above[session], from_low[session] = more, reached
    return above, from_low
