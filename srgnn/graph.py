"""The only session-graph construction there is: one vectorised pass, for one session or for thousands.

Shape letters, used throughout the project: B sessions, N nodes, E edges, C clicks, V catalogue items, d hidden size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import Data

from .sequence import IntArray


class SessionBatch(Data):  # type: ignore[misc]
    """B session graphs as one disconnected graph; sessions keep their order, nodes are sorted by catalogue row.

    x              [N] int64    catalogue row of each node, distinct within a session
    edge_index     [2, E] int64 u -> v for consecutive clicks, kept once; self-loops kept
    weight_in      [E] float32  1 / |distinct predecessors of v|
    weight_out     [E] float32  1 / |distinct successors of u|
    click_node     [C] int64    node of each click, oldest first
    click_session  [C] int64    session of each click
    click_age      [C] int64    clicks since this one: 0 for the last click of a session
    last_node      [B] int64    node of the last click (not the last new node: [a, b, a] ends in a)
    """

    @property
    def num_sessions(self) -> int:
        """B."""
        return int(self.last_node.size(0))

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """How PyG's ``Batch`` shifts each field; proven equal to :func:`session_batch` by a test."""
        if key == "click_session":
            return self.num_sessions
        if key in ("edge_index", "click_node", "last_node"):
            return self.num_nodes
        return 0


def session_batch(sequences: Sequence[IntArray]) -> SessionBatch:
    """Graphs of non-empty sequences of catalogue rows. Raises ValueError on an empty one or on none at all."""
    if not len(sequences):
        raise ValueError("session_batch needs at least one sequence")
    lengths = np.fromiter((len(sequence) for sequence in sequences), np.int64, len(sequences))
    return flat_session_batch(np.concatenate(sequences), lengths)


def flat_session_batch(items: npt.NDArray[np.integer[Any]], lengths: IntArray) -> SessionBatch:
    """Graphs of B sequences laid end to end: ``items`` [C] catalogue rows, ``lengths`` [B] >= 1, summing to C."""
    if lengths.min() < 1:
        raise ValueError(f"sequence {int(lengths.argmin())} is empty: a session graph needs at least one click")
    ends = np.cumsum(lengths)
    session = np.repeat(np.arange(len(lengths)), lengths)  # [C]
    width = int(items.max()) + 1
    node_keys, click_node = np.unique(session * width + items, return_inverse=True)  # [N], [C]
    source, target = _distinct_edges(click_node, session, len(node_keys))
    return SessionBatch(
        x=torch.from_numpy(node_keys % width),
        edge_index=torch.from_numpy(np.stack([source, target])),
        weight_in=_inverse_degree(target, len(node_keys)),
        weight_out=_inverse_degree(source, len(node_keys)),
        click_node=torch.from_numpy(click_node),
        click_session=torch.from_numpy(session),
        click_age=torch.from_numpy(np.repeat(ends, lengths) - 1 - np.arange(len(items))),
        last_node=torch.from_numpy(click_node[ends - 1]),
        num_nodes=len(node_keys),
    )


def _distinct_edges(click_node: IntArray, session: IntArray, num_nodes: int) -> tuple[IntArray, IntArray]:
    """Source and target [E] of each distinct transition between consecutive clicks of one session."""
    within = session[1:] == session[:-1]
    keys = np.unique(click_node[:-1][within] * num_nodes + click_node[1:][within])
    return keys // num_nodes, keys % num_nodes


def _inverse_degree(ends: IntArray, num_nodes: int) -> Tensor:
    """1 / (edges sharing this end), per edge: float32 [E]."""
    degree = np.bincount(ends, minlength=num_nodes)
    return torch.from_numpy((1.0 / degree[ends]).astype(np.float32))
