"""Session graphs in the form of torch-geometric, for training.

Serving needs no more than :mod:`srgnn.graph`: without torch-geometric it is up in half the time, in 160 MB less
(docs/log.md).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch_geometric.data import Data

from .graph import SessionGraphs, flat_session_graphs, session_graphs
from .sequence import IntArray


class SessionBatch(Data):  # type: ignore[misc]
    """:class:`SessionGraphs` as tensors, in the form of torch-geometric."""

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
    """What :func:`srgnn.graph.session_graphs` makes."""
    return _as_batch(session_graphs(sequences))


def flat_session_batch(items: npt.NDArray[np.integer[Any]], lengths: IntArray) -> SessionBatch:
    """What :func:`srgnn.graph.flat_session_graphs` makes."""
    return _as_batch(flat_session_graphs(items, lengths))


def _as_batch(graphs: SessionGraphs) -> SessionBatch:
    tensors = {name: torch.from_numpy(array) for name, array in graphs._asdict().items()}
    return SessionBatch(**tensors, num_nodes=len(graphs.x))
