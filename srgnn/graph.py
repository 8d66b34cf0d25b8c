"""The only session-graph construction there is: one compiled pass, for one session or for thousands.

Shape letters, used throughout the project: B sessions, N nodes, E edges, C clicks, V catalogue items, d hidden size.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .loops import graphs as loops
from .sequence import IntArray


class SessionGraphs(NamedTuple):
    """B session graphs as one disconnected graph; sessions keep their order, nodes are sorted by catalogue row."""

    x: IntArray
    """[N] catalogue row of each node, distinct within a session."""
    edge_index: IntArray
    """[2, E] u -> v for consecutive clicks, kept once; self-loops kept."""
    weight_in: npt.NDArray[np.float32]
    """[E] 1 / |distinct predecessors of v|."""
    weight_out: npt.NDArray[np.float32]
    """[E] 1 / |distinct successors of u|."""
    click_node: IntArray
    """[C] node of each click, oldest first."""
    click_session: IntArray
    """[C] session of each click."""
    click_age: IntArray
    """[C] clicks since this one: 0 for the last click of a session."""
    last_node: IntArray
    """[B] node of the last click (not the last new node: [a, b, a] ends in a)."""


def session_graphs(sequences: Sequence[IntArray]) -> SessionGraphs:
    """Graphs of non-empty sequences of catalogue rows. Raises ValueError on an empty one or on none at all."""
    return SessionGraphs(*loops.session_graphs(*laid_end_to_end(sequences)))


def laid_end_to_end(sequences: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """B sequences as clicks [C] and lengths [B]. Raises ValueError on an empty one or on none at all."""
    if not len(sequences):
        raise ValueError("a session graph needs at least one sequence")
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    return _checked(np.concatenate(sequences), lengths)


def flat_session_graphs(items: npt.NDArray[np.integer[Any]], lengths: IntArray) -> SessionGraphs:
    """Graphs of B sequences laid end to end: ``items`` [C] catalogue rows, ``lengths`` [B] >= 1, summing to C."""
    return SessionGraphs(*loops.session_graphs(*_checked(items, lengths)))


def _checked(items: npt.NDArray[np.integer[Any]], lengths: IntArray) -> tuple[IntArray, IntArray]:
    """As compiled loops take them: these would read what is behind an array."""
    if lengths.min() < 1:
        raise ValueError(f"sequence {int(lengths.argmin())} is empty: a session graph needs at least one click")
    if lengths.sum() != len(items):
        raise ValueError(f"the lengths sum to {int(lengths.sum())}, but there are {len(items)} clicks")
    return np.ascontiguousarray(items, np.int64), lengths
