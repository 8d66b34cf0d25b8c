"""The encoder multiplied out for inference, in numpy: the same function of the same weights, several times as fast.

One session is a handful of nodes, so a forward pass through :class:`srgnn.model.SessionEncoder` is mostly the cost of
calling: modules, message passing, separate linear maps. Here linear maps that follow one another are one matrix, and
both directions of the graph one sum. numpy, because its calls cost a third of torch's and its products of a few rows
in float64 take half the time. ``tests/unit/srgnn/test_packed.py`` holds the encoder and this together to 1e-12.
"""

import numpy as np
import torch
from torch import Tensor

from .conv import GatedSessionConv
from .graph import SessionGraphs
from .loops import FloatArray, neighbour_means
from .model import SessionEncoder
from .readout import SoftAttentionReadout
from .sequence import IntArray


class PackedEncoder:
    """Node embeddings float64 [N, d] and their graphs -> session vectors float64 [B, d]."""

    def __init__(self, encoder: SessionEncoder) -> None:
        self._steps = encoder.steps
        self._step = _PackedStep(encoder.conv)
        self._positions = None if encoder.positions is None else _array(encoder.positions.weight)
        self._readout = _PackedReadout(encoder.readout)

    def __call__(self, h: FloatArray, graphs: SessionGraphs) -> FloatArray:
        """See the class."""
        for _ in range(self._steps):
            h = self._step(h, graphs)
        clicks = h[graphs.click_node]  # [C, d]
        if self._positions is not None:
            clicks += self._positions[graphs.click_age]
        return self._readout(clicks, h[graphs.last_node], graphs.click_session)


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
        d = h.shape[1]
        means = neighbour_means(h, graphs.edge_index, graphs.weight_in, graphs.weight_out)  # [N, 2(d + 1)]
        gates = self._bias + means @ self._means  # [N, 3d]: reset, update, new
        hidden = self._hidden_bias + h @ self._hidden  # [N, 3d]
        both = _sigmoid(gates[:, : 2 * d] + hidden[:, : 2 * d])
        reset, update = both[:, :d], both[:, d:]
        new = np.tanh(gates[:, 2 * d :] + reset * hidden[:, 2 * d :])
        updated: FloatArray = new + update * (h - new)
        return updated


class _PackedReadout:
    """Soft attention over clicks, then the merge with the last click."""

    def __init__(self, readout: SoftAttentionReadout) -> None:
        self._last, self._click = _transposed(readout.linear_last.weight), _transposed(readout.linear_click.weight)
        self._bias = _array(readout.linear_last.bias) + _array(readout.linear_click.bias)
        self._query = _transposed(readout.query.weight)
        merge = readout.merge
        self._merge = None if merge is None else (_transposed(merge.weight), _array(merge.bias))

    def __call__(self, clicks: FloatArray, last: FloatArray, click_session: IntArray) -> FloatArray:
        """Click states [C, d] and last-click states [B, d] -> [B, d]."""
        context = self._bias + last @ self._last  # [B, d]
        alpha = _sigmoid(context[click_session] + clicks @ self._click) @ self._query  # [C, 1]
        first_clicks = np.searchsorted(click_session, np.arange(len(last)))
        global_part: FloatArray = np.add.reduceat(alpha * clicks, first_clicks)
        if self._merge is None:
            return global_part
        weight, bias = self._merge
        merged: FloatArray = np.concatenate([global_part, last], axis=1) @ weight + bias
        return merged


def _sigmoid(x: FloatArray) -> FloatArray:
    result: FloatArray = 0.5 * np.tanh(0.5 * x) + 0.5  # no overflow, and one call
    return result


def _mapped(gates: FloatArray, linear: torch.nn.Linear) -> FloatArray:
    """[3d, d] after ``linear``, transposed, its bias as a last row: [d + 1, 3d]."""
    bias = gates @ _array(linear.bias)
    return np.concatenate([(gates @ _array(linear.weight)).T, bias[None]])


def _transposed(parameter: Tensor) -> FloatArray:
    return np.ascontiguousarray(_array(parameter).T)


def _array(parameter: Tensor) -> FloatArray:
    values: FloatArray = parameter.detach().cpu().double().numpy()
    return values
