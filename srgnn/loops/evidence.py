"""What a session says about some items (:mod:`srgnn.blend`)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..compiled import compiled
from ..session_index import IndexArray, SessionIndex
from . import FloatArray, IntArray, Items
from .habits import RARE, Habits, shape_of
from .heap import k_largest
from .neighbours import Memory, last_clicks, votes
from .products import dot
from .table import empty_table, slot_of


@compiled
def evidence(
    memory: Memory,
    habits: Habits,
    sequence: IntArray,
    most_voted: int,
    share_unit: float,
    catalogue: Items,
    vector: FloatArray,
) -> tuple[IntArray, FloatArray, IntArray, FloatArray]:
    """Of the sequence and its ``vector`` [d] in a ``catalogue`` [V, d]: rows [n] and what votes say of each [n]; then
    where in these the session's own items stand [c], and what else is known of them [c, 6], in the order of
    srgnn.blend.Evidence."""
    voted, sums = votes(memory, sequence)
    clicked, ages, times = last_clicks(sequence)
    total = 0.0
    for vote in sums:
        total += vote
    if len(voted) > most_voted:
        voted, sums = k_largest(voted, sums, most_voted)
    rows, shares = np.empty(len(voted) + len(clicked), np.int64), np.zeros(len(voted) + len(clicked))
    places, known = np.full(len(clicked), -1), np.empty((len(clicked), 6))
    table = empty_table(len(clicked))
    for i in range(len(clicked)):
        table[slot_of(table, clicked, clicked[i])] = i
    for i in range(len(voted)):
        share = sums[i] / total if total > 0 else 0.0  # votes weigh nothing where every session holds what they are for
        rows[i], shares[i] = voted[i], np.log(1.0 + share / share_unit)
        own = table[slot_of(table, clicked, voted[i])]
        if own >= 0:
            places[own] = i
    found = len(voted)
    shape, told = shape_of(habits.older, sequence), habits.odds.shape[1]
    for i in range(len(clicked)):
        if places[i] < 0:
            places[i], rows[found] = found, clicked[i]
            found += 1
        label = len(clicked) - 1 - i  # items are in the order of their last clicks
        known[i, 0], known[i, 1], known[i, 2], known[i, 3] = 1.0, np.log1p(ages[i]), np.log(times[i]), ages[i] == 0
        known[i, 4] = habits.odds[shape, label] if label < told else RARE
        known[i, 5] = dot(catalogue[clicked[i]], vector)
    return rows[:found], shares[:found], places, known


@compiled
def bonuses(
    session_starts: IndexArray,
    clicked: IndexArray,
    clicked_at: IndexArray,
    item_starts: IndexArray,
    sessions: IndexArray,
    sessions_at: IndexArray,
    item_weight: FloatArray,
    cosine: bool,
    session_decay: float,
    neighbours: int,
    sample: int,
    linear: bool,
    click_decay: float,
    distance_decay: float,
    decays: FloatArray,
    older: npt.NDArray[np.int32],
    odds: Items,
    items: IntArray,
    lengths: IntArray,
    most_voted: int,
    share_unit: float,
    weights: FloatArray,
    catalogue: Items,
    vectors: FloatArray,
) -> tuple[IntArray, IntArray, FloatArray]:
    """Of sequences laid end to end, [C] rows and [B] lengths, and their ``vectors`` [B, d] in a ``catalogue`` [V, d],
    as Pairs: features weighted by ``weights`` [7]. The first arguments are a :class:`Memory` and :class:`Habits`, field
    by field."""
    past = SessionIndex(session_starts, clicked, clicked_at, item_starts, sessions, sessions_at)
    memory = Memory(
        past, item_weight, cosine, session_decay, neighbours, sample, linear, click_decay, distance_decay, decays
    )
    pairs = weighed(memory, Habits(older, odds), items, lengths, most_voted, share_unit, weights, catalogue, vectors)
    return pairs.sessions, pairs.rows, pairs.bonuses


class Pairs(NamedTuple):
    """M pairs of a session in the batch and a catalogue row, in the order of sessions where it is asked for."""

    sessions: IntArray
    """[M]."""
    rows: IntArray
    """[M]."""
    bonuses: FloatArray
    """[M]: what the session adds to the item's score."""


@compiled
def weighed(
    memory: Memory,
    habits: Habits,
    items: IntArray,
    lengths: IntArray,
    most_voted: int,
    share_unit: float,
    weights: FloatArray,
    catalogue: Items,
    vectors: FloatArray,
) -> Pairs:
    """The same, of whole tuples."""
    room = len(items) + most_voted * len(lengths)
    found_sessions, found_rows, scores = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
    start = found = 0
    for session in range(len(lengths)):
        sequence = items[start : start + lengths[session]]
        rows, shares, places, known = evidence(
            memory, habits, sequence, most_voted, share_unit, catalogue, vectors[session]
        )
        for i in range(len(rows)):
            found_sessions[found + i], found_rows[found + i] = session, rows[i]
            scores[found + i] = weights[0] * shares[i]
        for i in range(len(places)):
            for j in range(known.shape[1]):
                scores[found + places[i]] += weights[1 + j] * known[i, j]
        found += len(rows)
        start += lengths[session]
    return Pairs(found_sessions[:found], found_rows[:found], scores[:found])
