"""Similar past sessions (:mod:`srgnn.neighbours`)."""

from typing import NamedTuple

import numpy as np

from ..compiled import compiled
from ..session_index import SessionIndex
from . import FloatArray, IntArray
from .encoder import exponential
from .fetch import fetch
from .heap import k_largest
from .table import empty_table, slot_of

DISTANCES = 32
"""Clicks from one to another whose weights are computed ahead: more are rare."""


class Memory(NamedTuple):
    """All that votes are counted from, in the form that compiled loops take."""

    past: SessionIndex
    item_weight: FloatArray
    """[V]."""
    cosine: bool
    session_decay: float
    neighbours: int
    sample: int
    linear: bool
    click_decay: float
    distance_decay: float
    decays: FloatArray
    """[DISTANCES]: what a vote weighs by the clicks from the shared one."""


@compiled
def votes(memory: Memory, sequence: IntArray) -> tuple[IntArray, FloatArray]:
    """Distinct rows [n] in the order they are met, and the sum of the votes for each [n]."""
    sessions, similarity, shared_at = nearest(memory, sequence)
    index = memory.past
    most = 0
    for session in sessions:  # all at once; below each would wait for the one before it
        first = index.session_starts[session]
        fetch(index.clicked, first, 1)
        fetch(index.clicked_at, first, 1)
        most += index.session_starts[session + 1] - first
    table = empty_table(most)
    rows, sums = np.empty(most, np.int64), np.zeros(most)
    found = 0
    for neighbour in range(len(sessions)):
        session = sessions[neighbour]
        for click in range(index.session_starts[session], index.session_starts[session + 1]):
            row = np.int64(index.clicked[click])
            distance = abs(index.clicked_at[click] - shared_at[neighbour])
            decay = memory.decays[distance] if distance < DISTANCES else np.exp(-distance / memory.distance_decay)
            weight = similarity[neighbour] * memory.item_weight[row] * decay
            slot = slot_of(table, rows, row)
            if table[slot] < 0:
                table[slot], rows[found] = found, row
                found += 1
            sums[table[slot]] += weight
    return rows[:found], sums[:found]


@compiled
def nearest(memory: Memory, sequence: IntArray) -> tuple[IntArray, FloatArray, IntArray]:
    """The k most similar sessions, how similar they are, and the place of the last shared click in each: [<= k]."""
    index = memory.past
    rows, ages, _ = last_clicks(sequence)
    counts = np.empty(len(rows), np.int64)
    for i in range(len(rows)):
        counts[i] = min(memory.sample, index.item_starts[rows[i] + 1] - index.item_starts[rows[i]])
    most = counts.sum()
    table = empty_table(most)
    sessions, similarity = np.empty(most, np.int64), np.zeros(most)
    shared_at, shared_age = np.empty(most, np.int64), np.empty(most, np.int64)
    found = 0
    for i in range(len(rows)):
        weight = 1.0 - ages[i] / len(sequence) if memory.linear else np.exp(-ages[i] / memory.click_decay)
        weight *= memory.item_weight[rows[i]]
        start = index.item_starts[rows[i]]
        for click in range(start, start + counts[i]):
            session = np.int64(index.sessions[click])
            slot = slot_of(table, sessions, session)
            if table[slot] < 0:
                table[slot], sessions[found] = found, session
                found += 1
            place = table[slot]
            similarity[place] += weight
            # of several shared clicks the last one stays: ``rows`` are in the order of their last clicks
            shared_at[place], shared_age[place] = index.sessions_at[click], ages[i]
    past_sessions, similarity = len(index.session_starts) - 1, similarity[:found]
    # nothing else in this loop, or it is not compiled to vectors; 4e-18 is the least that is left of a similarity
    for place in range(found):
        similarity[place] *= exponential(-(sessions[place] / past_sessions / memory.session_decay))
    if memory.cosine:
        for place in range(found):
            session = sessions[place]
            similarity[place] /= np.sqrt(index.session_starts[session + 1] - index.session_starts[session])
    if memory.linear:
        for place in range(found):
            similarity[place] *= max(0.0, 1.0 - shared_age[place] / 10)
    if found <= memory.neighbours:
        return sessions[:found], similarity, shared_at[:found]
    chosen, best = k_largest(sessions[:found], similarity, memory.neighbours)
    last_shared = np.empty(len(chosen), np.int64)
    for i in range(len(chosen)):
        last_shared[i] = shared_at[table[slot_of(table, sessions, chosen[i])]]
    return chosen, best, last_shared


@compiled
def last_clicks(sequence: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """The distinct items of a sequence in the order of their last clicks, the ages of these clicks, and how often each
    was clicked: three [n]."""
    rows, ages, times = np.empty_like(sequence), np.empty_like(sequence), np.zeros_like(sequence)
    table = empty_table(len(sequence))
    first = len(sequence)  # filled from the end
    for place in range(len(sequence) - 1, -1, -1):
        slot = slot_of(table, rows, sequence[place])
        if table[slot] < 0:
            first -= 1
            table[slot], rows[first], ages[first] = first, sequence[place], len(sequence) - 1 - place
        times[table[slot]] += 1
    return rows[first:], ages[first:], times[first:]
