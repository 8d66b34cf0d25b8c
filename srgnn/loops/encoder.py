"""From clicks to session vectors (:mod:`srgnn.packed`)."""

from typing import NamedTuple

import numpy as np

from ..compiled import compiled, fused
from . import FloatArray, IntArray, Items, Ready
from .graphs import session_graphs

POWERS_OF_TWO = np.ldexp(1.0, np.arange(-60, 61))


class Encoder(NamedTuple):
    """What a session encoder has learnt, multiplied out; float64, d its width."""

    maps: FloatArray
    """[3, d, 3d]: from a node's state to the gates of its successors, to those of its predecessors, and to its own."""
    map_biases: FloatArray
    """[3, 3d], of each."""
    bias: FloatArray
    """[3d], of all gates, whoever is heard."""
    positions: FloatArray
    """[longest, d] by the age of a click; [0, d]: none."""
    last: FloatArray
    """[d, d]: from the last click to the attention's gates."""
    click: FloatArray
    """[d, d]: from each click to them."""
    attention_bias: FloatArray
    """[d], of both."""
    query: FloatArray
    """[d]: from these gates to a click's weight."""
    merge: FloatArray
    """[2d, d]: from the weighted sum of clicks and the last one to the vector; [0, d]: that sum is the vector."""
    merge_bias: FloatArray
    """[d]."""
    steps: int
    """Of propagation."""
    length: float
    """Of every session vector; 0: as long as it is."""
    ready: FloatArray
    """[P, 3, 3d]: what :func:`mapped` makes of each of P items; a copy of it is a fraction of the work."""
    ready_at: Ready
    """[V]: where an item's is, -1 for none; [0]: no item's is ready."""


@compiled
def encode(
    items: Items,
    clicked: IntArray,
    lengths: IntArray,
    maps: FloatArray,
    map_biases: FloatArray,
    bias: FloatArray,
    positions: FloatArray,
    last: FloatArray,
    click: FloatArray,
    attention_bias: FloatArray,
    query: FloatArray,
    merge: FloatArray,
    merge_bias: FloatArray,
    steps: int,
    length: float,
    ready: FloatArray,
    ready_at: Ready,
) -> tuple[FloatArray, FloatArray]:
    """Session vectors [B, D] of sequences laid end to end, [C] rows of ``items`` [V, D] and [B] lengths >= 1; and how
    much each click weighs in its session's sum [C]. The rest is an :class:`Encoder`, field by field. Of the D numbers
    of items and vectors it knows the first d, and leaves the others 0."""
    x, edge_index, weight_in, weight_out, click_node, click_session, click_age, last_node = session_graphs(
        clicked, lengths
    )
    d = maps.shape[1]
    h = np.empty((len(x), d))
    for node in range(len(x)):
        if not 0 <= x[node] < len(items):
            raise IndexError("a sequence holds a row that the catalogue has not")
        h[node] = items[x[node], :d]
    told = mapped_items(x, h, maps, map_biases, ready, ready_at) if len(ready_at) else mapped(h, maps, map_biases)
    for step in range(steps):
        if step > 0:
            told = mapped(h, maps, map_biases)
        h = gated(h, told, heard(len(h), told, edge_index, weight_in, weight_out), bias)
    clicks, last_clicked = click_states(h, positions, click_node, click_age), h[last_node]
    gates = product(last_clicked, last), product(clicks, click)
    alphas = attention(gates[0], gates[1], attention_bias, query, click_session)
    vectors = weighted_sums(alphas, clicks, click_session, len(lengths))
    if len(merge):
        vectors = product(np.concatenate((vectors, last_clicked), axis=1), merge) + merge_bias
    whole = np.zeros((len(vectors), items.shape[1]))
    whole[:, :d] = scaled(vectors, length) if length > 0 else vectors
    return whole, alphas


@compiled
def product(rows: FloatArray, matrix: FloatArray) -> FloatArray:
    """[n, i] x [i, o] -> [n, o]. A few rows take half of BLAS' time, thousands 1.2 times as much (docs/log.md)."""
    made = np.zeros((in_fours(len(rows)), matrix.shape[1]))
    add_product(rows, matrix, made)
    return made[: len(rows)]


@compiled
def in_fours(rows: int) -> int:
    """So many, and up to three more."""
    return -(-rows // 4) * 4


@fused
def add_product(rows: FloatArray, matrix: FloatArray, made: FloatArray) -> None:
    """``made`` [in_fours(n), o] += [n, i] x [i, o]; what is added to its last rows means nothing."""
    whole = len(rows) - len(rows) % 4
    for n in range(0, whole, 4):
        add_products_of_four(rows[n : n + 4], matrix, made[n:])
    if len(rows) - whole == 1:
        add_products(rows[whole], matrix, made[whole])
    elif len(rows) > whole:
        four = np.zeros((4, rows.shape[1]))
        four[: len(rows) - whole] = rows[whole:]
        add_products_of_four(four, matrix, made[whole:])


@fused
def add_products(row: FloatArray, matrix: FloatArray, made: FloatArray) -> None:
    """``made`` [o] += row [i] x matrix [i, o], four rows of it at a time: what is made is read and written less."""
    whole = len(row) - len(row) % 4
    for k in range(0, whole, 4):
        a, b, c, e = row[k], row[k + 1], row[k + 2], row[k + 3]
        for j in range(len(made)):
            made[j] = made[j] + a * matrix[k, j] + b * matrix[k + 1, j] + c * matrix[k + 2, j] + e * matrix[k + 3, j]
    for k in range(whole, len(row)):
        for j in range(len(made)):
            made[j] += row[k] * matrix[k, j]


@fused
def add_products_of_four(rows: FloatArray, matrix: FloatArray, made: FloatArray) -> None:
    """The same of four rows, [4, i] and [4, o], so that the matrix is read once for all of them."""
    whole = rows.shape[1] - rows.shape[1] % 4
    for k in range(0, whole, 4):
        for j in range(made.shape[1]):
            a, b, c, e = matrix[k, j], matrix[k + 1, j], matrix[k + 2, j], matrix[k + 3, j]
            for n in range(4):
                made[n, j] = made[n, j] + rows[n, k] * a + rows[n, k + 1] * b + rows[n, k + 2] * c + rows[n, k + 3] * e
    for k in range(whole, rows.shape[1]):
        for j in range(made.shape[1]):
            for n in range(4):
                made[n, j] += rows[n, k] * matrix[k, j]


@compiled
def mapped(states: FloatArray, maps: FloatArray, map_biases: FloatArray) -> FloatArray:
    """States [n, d] by the three maps of an :class:`Encoder`: [3, >= n, 3d], the rows past n without a meaning."""
    made = np.empty((3, in_fours(len(states)), maps.shape[2]))
    for part in range(3):
        made[part] = map_biases[part]
        add_product(states, maps[part], made[part])
    return made


@compiled
def mapped_items(
    x: IntArray, h: FloatArray, maps: FloatArray, map_biases: FloatArray, ready: FloatArray, ready_at: Ready
) -> FloatArray:
    """The same of items ``x`` [N] with states ``h`` [N, d], copied as far as it is ``ready``: [3, N, 3d]."""
    missing, states = np.empty_like(x), np.empty_like(h)
    found = 0
    for node in range(len(x)):
        if ready_at[x[node]] < 0:
            copy(h[node], states[found])
            missing[found] = node
            found += 1
    made, told = mapped(states[:found], maps, map_biases), np.empty((3, len(x), maps.shape[2]))
    for part in range(3):
        for node in range(len(x)):
            if ready_at[x[node]] >= 0:
                copy(ready[ready_at[x[node]], part], told[part, node])
        for i in range(found):
            copy(made[part, i], told[part, missing[i]])
    return told


@compiled
def copy(numbers: FloatArray, there: FloatArray) -> None:
    """To as many; an assignment between slices takes longer (docs/log.md)."""
    for j in range(len(numbers)):
        there[j] = numbers[j]


@compiled
def heard(nodes: int, told: FloatArray, edge_index: IntArray, weight_in: Items, weight_out: Items) -> FloatArray:
    """What each of N ``nodes`` hears [N, 3d] of what they tell [3, >= N, 3d]: the mean of its predecessors and that of
    its successors, 0 where there are none."""
    total = np.zeros((nodes, told.shape[2]))
    for edge in range(edge_index.shape[1]):
        source, target = edge_index[0, edge], edge_index[1, edge]
        for j in range(told.shape[2]):
            total[target, j] += weight_in[edge] * told[0, source, j]
        for j in range(told.shape[2]):
            total[source, j] += weight_out[edge] * told[1, target, j]
    return total


@compiled
def gated(h: FloatArray, told: FloatArray, total: FloatArray, bias: FloatArray) -> FloatArray:
    """The GRU cell's new states [N, d] from its old ones, what each tells itself, the last of ``told`` [3, >= N, 3d],
    and what it hears [N, 3d]: for reset, update and new, ``bias`` [3d] on top."""
    nodes, d = h.shape
    updated = np.empty_like(h)
    for node in range(nodes):
        for j in range(d):
            reset = sigmoid(total[node, j] + bias[j] + told[2, node, j])
            k = d + j
            update = sigmoid(total[node, k] + bias[k] + told[2, node, k])
            k += d
            new = tanh(total[node, k] + bias[k] + reset * told[2, node, k])
            updated[node, j] = new + update * (h[node, j] - new)
    return updated


@compiled
def click_states(h: FloatArray, positions: FloatArray, click_node: IntArray, click_age: IntArray) -> FloatArray:
    """States of clicks [C, d]: of their nodes, and of their ages where there are ``positions`` [ages, d]."""
    states = np.empty((len(click_node), h.shape[1]))
    for click in range(len(states)):
        for j in range(h.shape[1]):
            states[click, j] = h[click_node[click], j]
            if len(positions):
                states[click, j] += positions[click_age[click], j]
    return states


@compiled
def attention(
    context: FloatArray, mapped: FloatArray, bias: FloatArray, query: FloatArray, session: IntArray
) -> FloatArray:
    """Soft attention on each click [C]: ``context`` [B, d] and ``mapped`` [C, d] are the maps of last clicks and of
    clicks, without their ``bias``."""
    alphas, gates = np.empty(len(mapped)), np.empty(len(query))
    for click in range(len(mapped)):
        of = session[click]
        for j in range(len(query)):  # apart from the sum, whose order holds, so that it is compiled to vectors
            gates[j] = query[j] * sigmoid(context[of, j] + mapped[click, j] + bias[j])
        alpha = 0.0
        for gate in gates:
            alpha += gate
        alphas[click] = alpha
    return alphas


@compiled
def weighted_sums(alphas: FloatArray, clicks: FloatArray, session: IntArray, sessions: int) -> FloatArray:
    """Sum of each session's click states [C, d], by their ``alphas`` [C]: [B, d]."""
    sums = np.zeros((sessions, clicks.shape[1]))
    for click in range(len(clicks)):
        for j in range(clicks.shape[1]):
            sums[session[click], j] += alphas[click] * clicks[click, j]
    return sums


@compiled
def scaled(vectors: FloatArray, length: float) -> FloatArray:
    """Vectors [B, d], each of this length; one of no length stays as it is."""
    made = np.empty_like(vectors)
    for session in range(len(vectors)):
        squares = 0.0
        for value in vectors[session]:
            squares += value * value
        factor = length / max(np.sqrt(squares), 1e-12)
        for j in range(vectors.shape[1]):
            made[session, j] = vectors[session, j] * factor
    return made


@compiled
def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + exponential(-x))


@compiled
def tanh(x: float) -> float:
    """A rounding or two of exp from right, and a fraction of the time of the C library's (docs/log.md)."""
    return 1.0 - 2.0 / (1.0 + exponential(2.0 * x))


@compiled
def exponential(x: float) -> float:
    """exp, of -40 to 40 and no further, where gates are 0 or 1 but for 4e-18.

    2^n exp(r), exp(r) by its series for at most half of log 2: nothing but products, sums and a table, so that loops
    around it are compiled to vectors; the C library's exp is called for each number.
    """
    x = min(40.0, max(-40.0, x))  # in this order nan is -40, and no place outside of the table
    n = np.floor(x * 1.4426950408889634 + 0.5)
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10  # log 2 in two parts, the products of the first exact
    power = 1 / 3628800 + r * (1 / 39916800 + r * (1 / 479001600 + r * (1 / 6227020800)))
    power = 1 / 720 + r * (1 / 5040 + r * (1 / 40320 + r * (1 / 362880 + r * power)))
    power = 1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * power)))
    return float((1.0 + r * (1.0 + r * power)) * POWERS_OF_TWO[np.int64(n) + 60])
