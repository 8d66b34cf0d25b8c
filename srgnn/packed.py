"""The encoder multiplied out for inference: the same function of the same weights, several times as fast.

One session is a handful of nodes, so a forward pass through :class:`srgnn.model.SessionEncoder` is mostly the cost of
calling: modules, message passing, separate linear maps. Here linear maps that follow one another are one matrix, both
directions of the graph one sum, and what is between two products one compiled loop. The products are numpy's, because
its calls cost a third of torch's and its products of a few rows in float64 take half the time.
``tests/unit/srgnn/test_packed.py`` holds the encoder and this together to 1e-12.
"""

import numpy as np
import torch
from torch import Tensor

from .conv import GatedSessionConv
from .graph import SessionGraphs
from .loops import FloatArray, attended, click_states, gated, neighbour_means, scaled
from .model import SessionEncoder, SRGNNConfig
from .readout import SoftAttentionReadout
from .sequence import IntArray


class PackedEncoder:
    """Node embeddings float64 [N, d] and their graphs -> session vectors float64 [B, d], scaled as SRGNN does."""

    def __init__(self, encoder: SessionEncoder, config: SRGNNConfig) -> None:
        self._length = config.scale if config.scoring == "cosine" else None
        self._steps = encoder.steps
        self._step = _PackedStep(encoder.conv)
        none = np.empty((0, encoder.conv.linear_in.out_features))
        self._positions = none if encoder.positions is None else _array(encoder.positions.weight)
        self._readout = _PackedReadout(encoder.readout)

    def __call__(self, h: FloatArray, graphs: SessionGraphs) -> FloatArray:
        """See the class."""
        for _ in range(self._steps):
            h = self._step(h, graphs)
        clicks = click_states(h, self._positions, graphs.click_node, graphs.click_age)  # [C, d]
        vectors = self._readout(clicks, h[graphs.last_node], graphs.click_session)
        return vectors if self._length is None else scaled(vectors, self._length)


class _PackedStep:
    """``GRUCell([W_in mean(h) ; W_out mean(h)], h)``, the maps of the means multiplied into the cell's."""

    def __init__(self, conv: GatedSessionConv) -> None:
        cell = conv.cell
        into, out_of = np.split(_array(cell.weight_ih), 2, axis=1)  # [3d, d] each
        self._means = np.concatenate([_mapped(into, conv.linear_in), _mapped(out_of, conv.linear_out)])
        self._bias = into @ _array(conv.bias_in) + out_of @ _array(conv.bias_out) + _array(cell.bias_ih)  # [3d]
        self._hidden, self._hidden_bias = _transposed(cell.weight_hh), _array(cell.bias_hh)

    def __call__(self, h: FloatArray, graphs: SessionGraphs) -> FloatArray:
        """[N, d] -> [N, d]."""
        means = neighbour_means(h, graphs.edge_index, graphs.weight_in, graphs.weight_out)  # [N, 2(d + 1)]
        return gated(h, means @ self._means, h @ self._hidden, self._bias, self._hidden_bias)


class _PackedReadout:
    """Soft attention over clicks, then the merge with the last click."""

    def __init__(self, readout: SoftAttentionReadout) -> None:
        self._last, self._click = _transposed(readout.linear_last.weight), _transposed(readout.linear_click.weight)
        self._bias = _array(readout.linear_last.bias) + _array(readout.linear_click.bias)
        self._query = _array(readout.query.weight)[0]
        merge = readout.merge
        self._merge = None if merge is None else (_transposed(merge.weight), _array(merge.bias))

    def __call__(self, clicks: FloatArray, last: FloatArray, click_session: IntArray) -> FloatArray:
        """Click states [C, d] and last-click states [B, d] -> [B, d]."""
        global_part = attended(last @ self._last, clicks @ self._click, self._bias, self._query, clicks, click_session)
        if self._merge is None:
            return global_part
        weight, bias = self._merge
        merged: FloatArray = np.concatenate([global_part, last], axis=1) @ weight + bias
        return merged


def _mapped(gates: FloatArray, linear: torch.nn.Linear) -> FloatArray:
    """[3d, d] after ``linear``, transposed, its bias as a last row: [d + 1, 3d]."""
    bias = gates @ _array(linear.bias)
    return np.concatenate([(gates @ _array(linear.weight)).T, bias[None]])


def _transposed(parameter: Tensor) -> FloatArray:
    return np.ascontiguousarray(_array(parameter).T)


def _array(parameter: Tensor) -> FloatArray:
    values: FloatArray = parameter.detach().cpu().double().numpy()
    return values
