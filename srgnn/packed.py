"""The encoder multiplied out for inference: the same function of the same weights, several times as fast.

One session is a handful of nodes, so a forward pass through :class:`srgnn.model.SessionEncoder` is mostly the cost of
calling: modules, message passing, separate linear maps. Here linear maps that follow one another are one matrix, both
directions of the graph one sum, and all of it one compiled function (:func:`srgnn.loops.encoder.encode`).
``tests/unit/srgnn/test_packed.py`` holds the encoder and this together to 1e-12.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .config import SRGNNConfig
from .graph import laid_end_to_end
from .loops import FloatArray, Items
from .loops.encoder import Encoder, encode, mapped
from .sequence import IntArray

State = Mapping[str, Tensor]
"""Parameters of a :class:`srgnn.model.SessionEncoder` by their names in it; all of them, or of a part of it."""

READY_BYTES = 1 << 27
"""Memory for what is multiplied out ahead of sequences."""

READY_AT_ONCE = 64
"""Items; of many at once the allocator keeps the memory in between, 0.35 GB in a service with a million items."""

AT_ONCE = 64
"""Sequences: what lies between clicks and vectors of more of them no longer fits the processor's cache."""


def encoder_shapes(config: SRGNNConfig, max_length: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters of a :class:`srgnn.model.SessionEncoder`."""
    d = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "conv.bias_in": (d,),
        "conv.bias_out": (d,),
        "conv.linear_in.weight": (d, d),
        "conv.linear_in.bias": (d,),
        "conv.linear_out.weight": (d, d),
        "conv.linear_out.bias": (d,),
        "conv.cell.weight_ih": (3 * d, 2 * d),
        "conv.cell.weight_hh": (3 * d, d),
        "conv.cell.bias_ih": (3 * d,),
        "conv.cell.bias_hh": (3 * d,),
        "readout.linear_last.weight": (d, d),
        "readout.linear_last.bias": (d,),
        "readout.linear_click.weight": (d, d),
        "readout.linear_click.bias": (d,),
        "readout.query.weight": (1, d),
    }
    if config.hybrid:
        shapes |= {"readout.merge.weight": (d, 2 * d), "readout.merge.bias": (d,)}
    if config.reversed_positions:
        shapes["positions.weight"] = (max_length, d)
    return shapes


class PackedEncoder:
    """Sequences of catalogue rows -> session vectors float64 [B, D], scaled as SRGNN does, and alpha of each click [C]:
    how much it weighs in the global session embedding."""

    def __init__(self, state: State, config: SRGNNConfig) -> None:
        conv, readout = _part(state, "conv"), _part(state, "readout")
        into, out_of = np.split(_array(conv["cell.weight_ih"]), 2, axis=1)  # [3d, d] each
        told = [
            _mapped(into, _part(conv, "linear_in")),
            _mapped(out_of, _part(conv, "linear_out")),
            (_array(conv["cell.weight_hh"]), _array(conv["cell.bias_hh"])),
        ]
        biases = into @ _array(conv["bias_in"]) + out_of @ _array(conv["bias_out"])
        none = np.empty((0, config.hidden_size))
        self.weights = Encoder(
            maps=np.ascontiguousarray([weight.T for weight, _ in told]),
            map_biases=np.stack([bias for _, bias in told]),
            bias=biases + _array(conv["cell.bias_ih"]),
            positions=_array(state["positions.weight"]) if config.reversed_positions else none,
            last=_transposed(readout["linear_last.weight"]),
            click=_transposed(readout["linear_click.weight"]),
            attention_bias=_array(readout["linear_last.bias"]) + _array(readout["linear_click.bias"]),
            query=_array(readout["query.weight"])[0],
            merge=_transposed(readout["merge.weight"]) if config.hybrid else none,
            merge_bias=_array(readout["merge.bias"]) if config.hybrid else np.empty(0),
            steps=config.steps,
            length=config.scale if config.scoring == "cosine" else 0.0,
            ready=np.empty((0, 3, 3 * config.hidden_size)),
            ready_at=np.empty(0, np.int32),
        )

    def make_ready(self, items: Items, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Multiply out ahead what those ``rows`` of ``items`` [V, D] begin with, the most wanted first, for which
        there is room; what is made of a sequence stays the same to the last bit."""
        weights, d = self.weights, self.weights.maps.shape[1]
        kept = rows[: READY_BYTES // (9 * d * np.float64().itemsize)]
        ready, ready_at = np.empty((len(kept), 3, 3 * d)), np.full(len(items), -1, np.int32)
        for first in range(0, len(kept), READY_AT_ONCE):
            states = items[kept[first : first + READY_AT_ONCE], :d].astype(np.float64)
            made = mapped(states, weights.maps, weights.map_biases)[:, : len(states)]
            ready[first : first + READY_AT_ONCE] = made.swapaxes(0, 1)
        ready_at[kept] = np.arange(len(kept))
        self.weights = weights._replace(ready=ready, ready_at=ready_at)

    def __call__(self, items: Items, sequences: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        """``items``: the embeddings, float32 [V, D], more than d numbers wide where the catalogue knows more of items
        than the model; vectors are 0 there. Raises ValueError on an empty sequence or on none at all."""
        if len(sequences) <= AT_ONCE:
            return self._encode(items, sequences)
        parts = [self._encode(items, sequences[first : first + AT_ONCE]) for first in range(0, len(sequences), AT_ONCE)]
        vectors, alphas = zip(*parts, strict=True)
        return np.concatenate(vectors), np.concatenate(alphas)

    def _encode(self, items: Items, sequences: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        flat: tuple[Any, ...] = (items, *laid_end_to_end(sequences), *self.weights)
        return encode(*flat)


def _part(state: State, name: str) -> State:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}


def _mapped(gates: FloatArray, linear: State) -> tuple[FloatArray, FloatArray]:
    """[3d, d] after ``linear``, and what its bias makes [3d]."""
    return gates @ _array(linear["weight"]), gates @ _array(linear["bias"])


def _transposed(parameter: Tensor) -> FloatArray:
    return np.ascontiguousarray(_array(parameter).T)


def _array(parameter: Tensor) -> FloatArray:
    """Float64, a copy: a model that is trained further does not change what was packed."""
    return np.array(parameter.detach().cpu().numpy(), np.float64)
