"""What a session says about some items (:mod:`srgnn.blend`)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..compiled import compiled
from ..session_index import IndexArray, SessionIndex
from . import FloatArray, IntArray, Items
from .habits import RARE, Habits, shape_of
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
) -> tuple[IntArray, FloatArray]:
    """Rows [n] and their features [n, 7], as srgnn.blend.Evidence tells of them; of the sequence and its ``vector`` [d]
    in a ``catalogue`` [V, d]."""
    voted, sums = votes(memory, sequence)
    clicked, ages, times = last_clicks(sequence)
    total = 0.0
    for vote in sums:
        total += vote
    if len(voted) > most_voted:
        voted, sums = k_largest(voted, sums, most_voted)
    rows, features = np.empty(len(voted) + len(clicked), np.int64), np.zeros((len(voted) + len(clicked), 7))
    table, place = empty_table(len(clicked)), np.full(len(clicked), -1)
    for i in range(len(clicked)):
        table[slot_of(table, clicked, clicked[i])] = i
    for i in range(len(voted)):
        share = sums[i] / total if total > 0 else 0.0  # votes weigh nothing where every session holds what they are for
        rows[i], features[i, 0] = voted[i], np.log1p(share / share_unit)
        own = table[slot_of(table, clicked, voted[i])]
        if own >= 0:
            place[own] = i
    found = len(voted)
    shape, told = shape_of(habits.older, sequence), habits.odds.shape[1]
    for i in range(len(clicked)):
        if place[i] < 0:
            place[i], rows[found] = found, clicked[i]
            found += 1
        of_own = features[place[i]]
        of_own[1], of_own[2], of_own[3], of_own[4] = 1.0, np.log1p(ages[i]), np.log(times[i]), ages[i] == 0
        label = len(clicked) - 1 - i  # items are in the order of their last clicks
        of_own[5] = habits.odds[shape, label] if label < told else RARE
        of_own[6] = dot(catalogue[clicked[i]], vector)
    return rows[:found], features[:found]


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
    found_sessions, found_rows, scores = np.empty(room, np.int64), np.empty(room, np.int64), np.zeros(room)
    start = found = 0
    for session in range(len(lengths)):
        sequence = items[start : start + lengths[session]]
        rows, features = evidence(memory, habits, sequence, most_voted, share_unit, catalogue, vectors[session])
        for i in range(len(rows)):
            found_sessions[found], found_rows[found] = session, rows[i]
            for j in range(len(weights)):
                scores[found] += weights[j] * features[i, j]
            found += 1
        start += lengths[session]
    return Pairs(found_sessions[:found], found_rows[:found], scores[:found])
