"""The encoder multiplied out for inference: the same function of the same weights, several times as fast.

One session is a handful of nodes, so a forward pass through :class:`srgnn.model.SessionEncoder` is mostly the cost of
calling: modules, message passing, separate linear maps. Here linear maps that follow one another are one matrix, both
directions of the graph one sum, and what is between two products one compiled loop. The products are numpy's, because
its calls cost a third of torch's and its products of a few rows in float64 take half the time.
``tests/unit/srgnn/test_packed.py`` holds the encoder and this together to 1e-12.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from .config import SRGNNConfig
from .graph import SessionGraphs
from .loops import FloatArray, attention, click_states, gated, neighbour_means, scaled, weighted_sums
from .sequence import IntArray

State = Mapping[str, Tensor]
"""Parameters of a :class:`srgnn.model.SessionEncoder` by their names in it; all of them, or of a part of it."""


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
    """Node embeddings float64 [N, d] and their graphs -> session vectors float64 [B, d], scaled as SRGNN does."""

    def __init__(self, state: State, config: SRGNNConfig) -> None:
        self._length = config.scale if config.scoring == "cosine" else None
        self._steps = config.steps
        self._step = _PackedStep(_part(state, "conv"))
        none = np.empty((0, config.hidden_size))
        self._positions = _array(state["positions.weight"]) if config.reversed_positions else none
        self._readout = _PackedReadout(_part(state, "readout"))

    def __call__(self, h: FloatArray, graphs: SessionGraphs) -> FloatArray:
        """See the class."""
        clicks, last = self._click_states(h, graphs)
        vectors = self._readout(clicks, last, graphs.click_session)
        return vectors if self._length is None else scaled(vectors, self._length)

    def attention(self, h: FloatArray, graphs: SessionGraphs) -> FloatArray:
        """alpha of each click [C]: how much it weighs in the global session embedding."""
        return self._readout.attention(*self._click_states(h, graphs), graphs.click_session)

    def _click_states(self, h: FloatArray, graphs: SessionGraphs) -> tuple[FloatArray, FloatArray]:
        """States of every click [C, d] and of the last click [B, d]."""
        for _ in range(self._steps):
            h = self._step(h, graphs)
        return click_states(h, self._positions, graphs.click_node, graphs.click_age), h[graphs.last_node]


class _PackedStep:
    """``GRUCell([W_in mean(h) ; W_out mean(h)], h)``, the maps of the means multiplied into the cell's."""

    def __init__(self, conv: State) -> None:
        into, out_of = np.split(_array(conv["cell.weight_ih"]), 2, axis=1)  # [3d, d] each
        self._means = np.concatenate(
            [_mapped(into, _part(conv, "linear_in")), _mapped(out_of, _part(conv, "linear_out"))]
        )
        biases = into @ _array(conv["bias_in"]) + out_of @ _array(conv["bias_out"])
        self._bias = biases + _array(conv["cell.bias_ih"])  # [3d]
        self._hidden, self._hidden_bias = _transposed(conv["cell.weight_hh"]), _array(conv["cell.bias_hh"])

    def __call__(self, h: FloatArray, graphs: SessionGraphs) -> FloatArray:
        """[N, d] -> [N, d]."""
        means = neighbour_means(h, graphs.edge_index, graphs.weight_in, graphs.weight_out)  # [N, 2(d + 1)]
        return gated(h, means @ self._means, h @ self._hidden, self._bias, self._hidden_bias)


class _PackedReadout:
    """Soft attention over clicks, then the merge with the last click."""

    def __init__(self, readout: State) -> None:
        self._last = _transposed(readout["linear_last.weight"])
        self._click = _transposed(readout["linear_click.weight"])
        self._bias = _array(readout["linear_last.bias"]) + _array(readout["linear_click.bias"])
        self._query = _array(readout["query.weight"])[0]
        merge = _part(readout, "merge")
        self._merge = (_transposed(merge["weight"]), _array(merge["bias"])) if merge else None

    def __call__(self, clicks: FloatArray, last: FloatArray, click_session: IntArray) -> FloatArray:
        """Click states [C, d] and last-click states [B, d] -> [B, d]."""
        global_part = weighted_sums(self.attention(clicks, last, click_session), clicks, click_session, len(last))
        if self._merge is None:
            return global_part
        weight, bias = self._merge
        merged: FloatArray = np.concatenate([global_part, last], axis=1) @ weight + bias
        return merged

    def attention(self, clicks: FloatArray, last: FloatArray, click_session: IntArray) -> FloatArray:
        """The weights in that sum: [C]."""
        return attention(last @ self._last, clicks @ self._click, self._bias, self._query, click_session)


def _part(state: State, name: str) -> State:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}


def _mapped(gates: FloatArray, linear: State) -> FloatArray:
    """[3d, d] after ``linear``, transposed, its bias as a last row: [d + 1, 3d]."""
    bias = gates @ _array(linear["bias"])
    return np.concatenate([(gates @ _array(linear["weight"])).T, bias[None]])


def _transposed(parameter: Tensor) -> FloatArray:
    return np.ascontiguousarray(_array(parameter).T)


def _array(parameter: Tensor) -> FloatArray:
    """Float64, a copy: a model that is trained further does not change what was packed."""
    return np.array(parameter.detach().cpu().numpy(), np.float64)
