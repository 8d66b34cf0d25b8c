"""The past sessions most like the current one, and how they vote for its next click.

A session has a few hundred sessions to be compared with and as many items to be voted for: numbers that are met in any
order and added up, which is what the compiled loops below and their small hash tables are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isnan
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .compiled import FloatArray, compiled, offer
from .errors import ConfigError
from .sequence import IntArray
from .session_index import SessionIndex

MOST_NEIGHBOURS = 10_000
"""Of either number in Weights: what one click may cost."""


class Votes(NamedTuple):
    """What is known of a session's next item."""

    rows: npt.NDArray[np.integer[Any]]
    """[n] catalogue rows; an item may get several votes."""
    weights: FloatArray
    """[n] >= 0."""


@dataclass(frozen=True)
class Weights:
    """What counts how much. As it stands, every click, past session and item of it counts the same.

    The age of a click is the number of clicks made after it, the age of a past session the share of sessions that
    began after it; both are 0 for the last one.
    """

    neighbours: int = 200
    """k: most similar past sessions, which vote for their items; of equally similar ones the latest."""
    sample: int = 500
    """m: latest sessions of each clicked item that are compared at all, as in Serenade (Kersbergen et al., SIGMOD
    2022): it bounds the cost of a popular item."""
    cosine: bool = False
    """Divide a similarity by the square root of the number of items of the past session."""
    linear: bool = False
    """Count a click of the current session ``1 - age / length``, and the votes of a neighbour ``1 - age / 10``
    (at least 0), with the age of the last click it shares."""
    click_decay: float = inf
    """Count a click of the current session ``exp(-age / click_decay)``."""
    session_decay: float = inf
    """Count a past session ``exp(-age / session_decay)``."""
    distance_decay: float = inf
    """Count a vote ``exp(-distance / distance_decay)``, with the clicks between its item and the last shared click."""
    idf: bool = False
    """Count an item ``log(S / |S_i|)``, in a similarity and in a vote."""

    def __post_init__(self) -> None:
        for name in ("neighbours", "sample"):
            value = getattr(self, name)
            if not 1 <= value <= MOST_NEIGHBOURS:
                raise ConfigError(f"{name} is {value}: expected 1 to {MOST_NEIGHBOURS}")
        for name in ("click_decay", "session_decay", "distance_decay"):
            value = getattr(self, name)
            if isnan(value) or value <= 0:
                raise ConfigError(f"{name} is {value}: expected a number above 0")


STAN = Weights(click_decay=1.5, session_decay=1.0, distance_decay=4.0, idf=True)
"""The three decays of STAN (Garg et al., SIGIR 2019). Unlike there, rare items count more and the similarity
is no cosine: both were better on validation (docs/log.md)."""


class Memory(NamedTuple):
    """All that votes are counted from, in the form that compiled loops take."""

    past: SessionIndex
    item_weight: FloatArray
    """[V]."""
    session_weight: FloatArray
    """[S]."""
    neighbours: int
    sample: int
    linear: bool
    click_decay: float
    distance_decay: float


class Neighbours:
    """Neighbours are past sessions that share an item with the current one; each votes for all of its items.

    In a session, current or past, an item stands where it was clicked last. Each session is looked at by itself, so
    that votes cannot depend on a batch.
    """

    def __init__(self, index: SessionIndex, weights: Weights = STAN) -> None:
        self.index = index
        self.weights = weights
        sessions_of_item = np.maximum(np.diff(index.item_starts), 1)
        idf = np.log(index.num_sessions / sessions_of_item) if weights.idf else np.ones(len(sessions_of_item))
        age = np.arange(index.num_sessions) / index.num_sessions
        session_weight = np.exp(-age / weights.session_decay)
        if weights.cosine:
            session_weight /= np.sqrt(np.diff(index.session_starts))
        self.memory = Memory(
            index,
            idf,
            session_weight,
            weights.neighbours,
            weights.sample,
            weights.linear,
            float(weights.click_decay),
            float(weights.distance_decay),
        )

    def votes(self, sequence: IntArray) -> Votes:
        """Every item of every neighbour of one non-empty sequence of rows, oldest click first, once each."""
        return Votes(*votes(self.memory, sequence))


@compiled
def votes(memory: Memory, sequence: IntArray) -> tuple[IntArray, FloatArray]:
    """Distinct rows [n] in the order they are met, and the sum of the votes for each [n]."""
    sessions, similarity, shared_at = nearest(memory, sequence)
    index = memory.past
    most = 0
    for session in sessions:
        most += index.session_starts[session + 1] - index.session_starts[session]
    table = empty_table(most)
    rows, sums = np.empty(most, np.int64), np.zeros(most)
    found = 0
    for neighbour in range(len(sessions)):
        session = sessions[neighbour]
        for click in range(index.session_starts[session], index.session_starts[session + 1]):
            row = np.int64(index.clicked[click])
            distance = abs(index.clicked_at[click] - shared_at[neighbour])
            weight = similarity[neighbour] * memory.item_weight[row] * np.exp(-distance / memory.distance_decay)
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
    size = min(found, memory.neighbours)
    best, chosen = np.empty(size), np.empty(size, np.int64)
    held = 0
    for place in range(found):
        similarity[place] *= memory.session_weight[sessions[place]]
        if memory.linear:
            similarity[place] *= max(0.0, 1.0 - shared_age[place] / 10)
        held = offer(best, chosen, held, similarity[place], sessions[place])
    last_shared = np.empty(size, np.int64)
    for i in range(size):
        last_shared[i] = shared_at[table[slot_of(table, sessions, chosen[i])]]
    return chosen, best, last_shared


@compiled
def last_clicks(sequence: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """The distinct items of a sequence in the order of their last clicks, the ages of these clicks, and how often each
    was clicked: three [n]."""
    rows, ages, times = np.empty_like(sequence), np.empty_like(sequence), np.empty_like(sequence)
    found = 0
    for place in range(len(sequence)):
        row, clicks, again = sequence[place], 0, False
        for other in range(len(sequence)):
            if sequence[other] == row:
                clicks += 1
                again = again or other > place
        if not again:
            rows[found], ages[found], times[found] = row, len(sequence) - 1 - place, clicks
            found += 1
    return rows[:found], ages[:found], times[:found]


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
    slot = int(key) * 0x9E3779B1 & len(table) - 1  # Knuth's multiplier; row and session numbers are below 2 ** 31
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = slot + 1 & len(table) - 1
    return slot
