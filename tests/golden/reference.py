"""Loads figures of the published SR-GNN implementation (weights, scores, gradients) into our model.

File form: numpy ``.npz`` without pickle; ``meta`` (json: step, hidden_size, num_items, hybrid, loss), ``w.<name>``
weights, ``g.<name>`` gradients of the mean cross-entropy, ``sequences`` + ``offsets`` (CSR, item ids 1..V),
``targets``, ``scores`` [n, V] (column j = item j + 1). Embedding row 0 is the published code's padding.
"""

import itertools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from srgnn.model import SRGNN, SRGNNConfig

NAMES = {
    "embedding.weight": "embedding",
    "gnn.w_ih": "encoder.conv.cell.weight_ih",
    "gnn.w_hh": "encoder.conv.cell.weight_hh",
    "gnn.b_ih": "encoder.conv.cell.bias_ih",
    "gnn.b_hh": "encoder.conv.cell.bias_hh",
    "gnn.b_iah": "encoder.conv.bias_in",
    "gnn.b_oah": "encoder.conv.bias_out",
    "gnn.linear_edge_in.weight": "encoder.conv.linear_in.weight",
    "gnn.linear_edge_in.bias": "encoder.conv.linear_in.bias",
    "gnn.linear_edge_out.weight": "encoder.conv.linear_out.weight",
    "gnn.linear_edge_out.bias": "encoder.conv.linear_out.bias",
    "linear_one.weight": "encoder.readout.linear_last.weight",
    "linear_one.bias": "encoder.readout.linear_last.bias",
    "linear_two.weight": "encoder.readout.linear_click.weight",
    "linear_two.bias": "encoder.readout.linear_click.bias",
    "linear_three.weight": "encoder.readout.query.weight",
    "linear_transform.weight": "encoder.readout.merge.weight",
    "linear_transform.bias": "encoder.readout.merge.bias",
}
"""Published name -> ours."""


class Reference(NamedTuple):
    model: SRGNN
    """Ours, carrying the published weights."""
    sequences: list[np.ndarray]
    """Catalogue rows (published id - 1), one int64 array a session."""
    targets: np.ndarray
    """Rows [n]."""
    scores: np.ndarray
    """Published scores [n, V]."""
    loss: float
    """Published mean cross-entropy."""
    gradients: dict[str, np.ndarray]
    """Published gradients under our parameter names."""


def load(path: str | Path) -> Reference:
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays["meta"]))
    config = SRGNNConfig(hidden_size=meta["hidden_size"], steps=meta["step"], hybrid=meta["hybrid"])
    offsets = arrays["offsets"]
    sequences = [arrays["sequences"][a:b] - 1 for a, b in itertools.pairwise(offsets)]
    num_items = arrays["scores"].shape[1]
    model = SRGNN(config, num_items, max_length=max(map(len, sequences)))
    own = dict(model.named_parameters())
    weights = _translated(arrays, "w.", own)
    model.load_state_dict({name: torch.from_numpy(weights[name]) for name in own}, strict=True)
    gradients = _translated(arrays, "g.", own)
    return Reference(model, sequences, arrays["targets"] - 1, arrays["scores"], meta["loss"], gradients)


def _translated(arrays: dict[str, np.ndarray], prefix: str, own: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Published arrays under our names. W3 does not exist in ours when hybrid is off (unused there: gradient 0)."""
    found = {}
    for name, array in arrays.items():
        if not name.startswith(prefix):
            continue
        ours = NAMES[name.removeprefix(prefix)]
        if ours in own:
            found[ours] = array[1:] if ours == "embedding" else array
    return found
