"""Loops over single numbers, compiled: each would be a hundred calls of numpy on a few numbers.

They let go of the interpreter, and add up in the order in which they are written, whatever else is in a batch: numba
reorders no sum of floats. Those that are ``fused`` round less often where the processor can.

An argument of a new type (a list instead of an array, int32 instead of int64, an array that may be written to instead
of a mapped one) compiles a function again, for a second or more; callers bring the same types each time. What a click
waits for takes its arrays one by one, not as tuples: numba looks at what a tuple holds at every call, which costs as
much as the loop (docs/log.md).

Compiling all of them takes 10 to 60 s, so numba keeps what it compiled: in ``NUMBA_CACHE_DIR`` if that is set, else in
``__pycache__`` beside this file, else in the user's cache. It looks whether *this* file has changed and at no other,
which is why all that call each other are in it and what others know comes as an argument. docs/security.md says what
that means.

Shape letters: b sessions, G groups of GROUP rows in a block, M pairs of a session and a row.
"""

import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from .compiled import compiled, fused
from .session_index import IndexArray, SessionIndex

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Items = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
Words = npt.NDArray[np.int16]
Offsets = npt.NDArray[np.int32]
Rough = npt.NDArray[Any]
"""int32 or float32: unscaled scores."""

BONUS_ROUNDINGS = 2.0**-40
"""Relative error of adding a bonus in units of its session, with room to spare."""

POWERS_OF_TWO = np.ldexp(1.0, np.arange(-60, 61))

DISTANCES = 32
"""Clicks from one to another whose weights are computed ahead: more are rare."""

NEW_SHARE = 0.1
"""Of the chance of items without a label in a session's shape: what the next one to get a label starts from."""
RARE = np.log(NEW_SHARE / (1 - NEW_SHARE))
"""Log odds of going back to an item that a session's shape does not tell apart from others clicked before it."""

GROUP = 32
"""Rows a group; fixed by the artifact's format."""
LANES = 16
"""Numbers multiplied at once without VNNI, and the narrowest vectors that are taken; sessions at once with it."""
BYTES = 64
"""Numbers multiplied at once with it, and the narrowest vectors for which it is used."""
ROWS = 4
"""Items at once: one alone waits for each addition. What is multiplied comes in multiples of it."""
ROWS_OF_MANY = 8
"""The same where there are many sessions; twice as many are no faster (docs/log.md)."""
MANY = 5
"""Sessions from which on it is faster to take LANES of them at once."""
LOWEST = np.iinfo(np.int32).min
NEVER = 1 << 30
"""Taken off the score of an item that may not be answered: more than any product of vectors of int8."""
LOW = -(2.0**29)
"""No answer has so low a score of whole numbers."""
X86 = ("x86_64", "AMD64")
INSTRUCTIONS = '"target-features"="+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni"'
"""What functions that use the instruction are compiled for, whatever processor the rest is for."""
_INT8, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_PRODUCTS, _SUMS = (ir.VectorType(_INT32, lanes) for lanes in (LANES, LANES // 2))
_WORDS, _FOUR = ir.VectorType(_INT32, BYTES // 4), ir.VectorType(_INT32, ROWS)


# The best of many: a heap.


@compiled
def offer(values: FloatArray, keys: IntArray, held: int, value: float, key: int) -> int:
    """Offer one entry to the best ``len(values)`` seen so far, of which there are ``held``; how many there are then.

    An entry is better with a larger value, of equal values with the smaller key. The worst is at place 0 (a heap).
    """
    if held < len(values):
        place = held
        while place > 0:
            above = (place - 1) // 2
            if not worse(value, key, values[above], keys[above]):
                break
            values[place], keys[place] = values[above], keys[above]
            place = above
        values[place], keys[place] = value, key
        return held + 1
    if held > 0 and worse(values[0], keys[0], value, key):
        settle(values, keys, held, value, key)
    return held


@compiled
def worse(value: float, key: int, than_value: float, than_key: int) -> bool:
    """Whether one entry is worse than another."""
    return value < than_value or (value == than_value and key > than_key)


@compiled
def settle(values: FloatArray, keys: IntArray, held: int, value: float, key: int) -> None:
    """Put an entry in the place of the worst of ``held`` and find the place where it belongs."""
    place = 0
    while 2 * place + 1 < held:
        below = 2 * place + 1
        if below + 1 < held and worse(values[below + 1], keys[below + 1], values[below], keys[below]):
            below += 1
        if not worse(values[below], keys[below], value, key):
            break
        values[place], keys[place] = values[below], keys[below]
        place = below
    values[place], keys[place] = value, key


@compiled
def order(values: FloatArray, keys: IntArray, held: int) -> None:
    """Sort the ``held`` entries of :func:`offer`, the best first."""
    for last in range(held - 1, 0, -1):
        value, key = values[last], keys[last]
        values[last], keys[last] = values[0], keys[0]
        settle(values, keys, last, value, key)


# Where a number stands: a hash table.


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
    slot = int(key) * 0x9E3779B1 & len(table) - 1  # Knuth's multiplier; a product past 2 ** 63 wraps, which is as good
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = slot + 1 & len(table) - 1
    return slot


@compiled
def distinct(keys: IntArray, found: IntArray) -> tuple[IntArray, IntArray]:
    """The distinct keys, rising, in the first places of ``found``, and a table of where each is."""
    nothing = np.zeros(len(keys))
    table = empty_table(len(keys))
    held = 0
    for key in keys:
        slot = slot_of(table, found, key)
        if table[slot] < 0:
            table[slot], found[held] = held, key
            held += 1
    for i in range(held):  # with equal values, keys are sorted
        offer(nothing[:held], found, i, 0.0, found[i])
    order(nothing, found, held)
    table[:] = -1
    for i in range(held):
        table[slot_of(table, found, found[i])] = i
    return found[:held], table


# Session graphs (srgnn/graph.py).


@compiled
def session_graphs(items: IntArray, lengths: IntArray) -> tuple[Any, ...]:
    """The fields of srgnn.graph.SessionGraphs, of sequences laid end to end: [C] rows, [B] lengths >= 1."""
    x = np.empty_like(items)
    source, target = np.empty_like(items), np.empty_like(items)
    click_node, click_session, click_age = np.empty_like(items), np.empty_like(items), np.empty_like(items)
    last_node = np.empty_like(lengths)
    start = nodes = edges = 0
    for session in range(len(lengths)):
        stop = start + lengths[session]
        own, table = distinct(items[start:stop], x[nodes:])
        for click in range(start, stop):
            click_node[click] = nodes + table[slot_of(table, own, items[click])]
            click_session[click], click_age[click] = session, stop - 1 - click
        last_node[session] = click_node[stop - 1]
        steps = click_node[start : stop - 1] * len(items) + click_node[start + 1 : stop]
        kept, _ = distinct(steps, source[edges:])
        for step in kept:
            source[edges], target[edges] = step // len(items), step % len(items)
            edges += 1
        start, nodes = stop, nodes + len(own)
    weight_in, weight_out = inverse_degrees(target[:edges], nodes), inverse_degrees(source[:edges], nodes)
    edge_index = np.empty((2, edges), np.int64)
    edge_index[0], edge_index[1] = source[:edges], target[:edges]
    return x[:nodes], edge_index, weight_in, weight_out, click_node, click_session, click_age, last_node


@compiled
def inverse_degrees(ends: IntArray, nodes: int) -> Items:
    """1 / (edges sharing this end), per edge: float32 [E]."""
    degrees = np.zeros(nodes, np.int64)
    for end in ends:
        degrees[end] += 1
    weights = np.empty(len(ends), np.float32)
    for edge in range(len(ends)):
        weights[edge] = 1.0 / degrees[ends[edge]]
    return weights


# From clicks to session vectors (srgnn/packed.py).


class Encoder(NamedTuple):
    """What a session encoder has learnt, multiplied out; float64, d its width."""

    means: FloatArray
    """[2(d + 1), 3d]: from the mean of a node's predecessors, 1, the mean of its successors, 1 to the gates."""
    hidden: FloatArray
    """[d, 3d]: from the node's own state to them."""
    bias: FloatArray
    """[3d], of the first."""
    hidden_bias: FloatArray
    """[3d], of the second."""
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


@compiled
def encode(
    items: Items,
    clicked: IntArray,
    lengths: IntArray,
    means: FloatArray,
    hidden: FloatArray,
    bias: FloatArray,
    hidden_bias: FloatArray,
    positions: FloatArray,
    last: FloatArray,
    click: FloatArray,
    attention_bias: FloatArray,
    query: FloatArray,
    merge: FloatArray,
    merge_bias: FloatArray,
    steps: int,
    length: float,
) -> tuple[FloatArray, FloatArray]:
    """Session vectors [B, D] of sequences laid end to end, [C] rows of ``items`` [V, D] and [B] lengths >= 1; and how
    much each click weighs in its session's sum [C]. The rest is an :class:`Encoder`, field by field. Of the D numbers
    of items and vectors it knows the first d, and leaves the others 0."""
    x, edge_index, weight_in, weight_out, click_node, click_session, click_age, last_node = session_graphs(
        clicked, lengths
    )
    d = hidden.shape[0]
    h = np.empty((len(x), d))
    for node in range(len(x)):
        if not 0 <= x[node] < len(items):
            raise IndexError("a sequence holds a row that the catalogue has not")
        h[node] = items[x[node], :d]
    for _ in range(steps):
        heard = neighbour_means(h, edge_index, weight_in, weight_out)
        h = gated(h, product(heard, means), product(h, hidden), bias, hidden_bias)
    clicks, last_clicked = click_states(h, positions, click_node, click_age), h[last_node]
    gates = product(last_clicked, last), product(clicks, click)
    alphas = attention(gates[0], gates[1], attention_bias, query, click_session)
    vectors = weighted_sums(alphas, clicks, click_session, len(lengths))
    if len(merge):
        vectors = product(np.concatenate((vectors, last_clicked), axis=1), merge) + merge_bias
    whole = np.zeros((len(vectors), items.shape[1]))
    whole[:, :d] = scaled(vectors, length) if length > 0 else vectors
    return whole, alphas


@fused
def product(rows: FloatArray, matrix: FloatArray) -> FloatArray:
    """[n, i] x [i, o] -> [n, o]. A few rows take half of BLAS' time, thousands 1.2 times as much (docs/log.md)."""
    made = np.zeros((-(-len(rows) // 4) * 4, matrix.shape[1]))
    whole = len(rows) - len(rows) % 4
    for n in range(0, whole, 4):
        add_products_of_four(rows[n : n + 4], matrix, made[n:])
    if len(rows) - whole == 1:
        add_products(rows[whole], matrix, made[whole])
    elif len(rows) > whole:
        four = np.zeros((4, rows.shape[1]))
        four[: len(rows) - whole] = rows[whole:]
        add_products_of_four(four, matrix, made[whole:])
    return made[: len(rows)]


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
def neighbour_means(h: FloatArray, edge_index: IntArray, weight_in: Items, weight_out: Items) -> FloatArray:
    """Of node states [N, d]: mean of predecessors, 1, mean of successors, 1: [N, 2(d + 1)]. All zero, the 1 too, where
    there are none."""
    nodes, d = h.shape
    means = np.zeros((nodes, 2 * (d + 1)))
    for edge in range(edge_index.shape[1]):
        source, target = edge_index[0, edge], edge_index[1, edge]
        add_scaled(means[target, : d + 1], h[source], weight_in[edge])
        add_scaled(means[source, d + 1 :], h[target], weight_out[edge])
    return means


@compiled
def add_scaled(total: FloatArray, state: FloatArray, weight: float) -> None:
    """``total`` [d + 1] += weight * [state, 1]."""
    for j in range(len(state)):
        total[j] += weight * state[j]
    total[len(state)] += weight


@compiled
def gated(
    h: FloatArray, gates: FloatArray, hidden: FloatArray, bias: FloatArray, hidden_bias: FloatArray
) -> FloatArray:
    """The GRU cell's new states [N, d] from its old ones and what its maps made, without their biases: [N, 3d] each,
    reset, update, new."""
    nodes, d = h.shape
    updated = np.empty_like(h)
    for node in range(nodes):
        for j in range(d):
            reset = sigmoid(gates[node, j] + bias[j] + hidden[node, j] + hidden_bias[j])
            k = d + j
            update = sigmoid(gates[node, k] + bias[k] + hidden[node, k] + hidden_bias[k])
            k += d
            new = tanh(gates[node, k] + bias[k] + reset * (hidden[node, k] + hidden_bias[k]))
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


# Similar past sessions (srgnn/neighbours.py).


class Memory(NamedTuple):
    """All that votes are counted from, in the form that compiled loops take."""

    past: SessionIndex
    item_weight: FloatArray
    """[V]."""
    cosine: bool
    session_decay: float
    neighbours: int
    sample: int
    linear: bool
    click_decay: float
    distance_decay: float


@compiled
def votes(memory: Memory, sequence: IntArray) -> tuple[IntArray, FloatArray]:
    """Distinct rows [n] in the order they are met, and the sum of the votes for each [n]."""
    sessions, similarity, shared_at = nearest(memory, sequence)
    index = memory.past
    most = met = 0
    for session in sessions:
        most += index.session_starts[session + 1] - index.session_starts[session]
    for session in sessions:  # so that memory fetches all of them at once; below each would wait for the one before it
        first = index.session_starts[session]
        met |= index.clicked[first] | index.clicked_at[first]
    if met < 0:
        raise IndexError("a past session holds no row")
    table = empty_table(most)
    rows, sums = np.empty(most, np.int64), np.zeros(most)
    decays = np.exp(-np.arange(DISTANCES) / memory.distance_decay)
    found = 0
    for neighbour in range(len(sessions)):
        session = sessions[neighbour]
        for click in range(index.session_starts[session], index.session_starts[session + 1]):
            row = np.int64(index.clicked[click])
            distance = abs(index.clicked_at[click] - shared_at[neighbour])
            decay = decays[distance] if distance < DISTANCES else np.exp(-distance / memory.distance_decay)
            weight = similarity[neighbour] * memory.item_weight[row] * decay
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
    past_sessions = len(index.session_starts) - 1
    size = min(found, memory.neighbours)
    best, chosen = np.empty(size), np.empty(size, np.int64)
    held = 0
    for place in range(found):
        if held == size and similarity[place] < best[0]:
            continue  # what follows makes no similarity greater, and is most of the work
        similarity[place] *= np.exp(-(sessions[place] / past_sessions / memory.session_decay))
        if memory.cosine:
            similarity[place] /= np.sqrt(
                index.session_starts[sessions[place] + 1] - index.session_starts[sessions[place]]
            )
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
    rows, ages, times = np.empty_like(sequence), np.empty_like(sequence), np.zeros_like(sequence)
    table = empty_table(len(sequence))
    first = len(sequence)  # filled from the end
    for place in range(len(sequence) - 1, -1, -1):
        slot = slot_of(table, rows, sequence[place])
        if table[slot] < 0:
            first -= 1
            table[slot], rows[first], ages[first] = first, sequence[place], len(sequence) - 1 - place
        times[table[slot]] += 1
    return rows[first:], ages[first:], times[first:]


# How sessions go on that look like this one (srgnn/habits.py).


class Habits(NamedTuple):
    """A tree of shapes, as srgnn.habits tells of it; S shapes of at most D clicks."""

    older: npt.NDArray[np.int32]
    """[S, D + 1]: the shape with one click more, by the label of its item, from 0 to D - 1; D: with nothing before it.
    0: there is none."""
    odds: Items
    """[S, D]: log odds of the item with this label being the next one, against all items without one."""


@compiled
def labelled(sequence: IntArray, labels: IntArray) -> int:
    """Writes the labels of the last clicks, the last one first, into ``labels`` [D], and how many these are: items are
    numbered from 0 as they come."""
    clicks, fresh = min(len(sequence), len(labels)), 0
    for age in range(clicks):
        labels[age] = fresh
        for later in range(age):
            if sequence[len(sequence) - 1 - later] == sequence[len(sequence) - 1 - age]:
                labels[age] = labels[later]
                break
        fresh += labels[age] == fresh
    return clicks


@compiled
def shape_of(older: npt.NDArray[np.int32], sequence: IntArray) -> int:
    """The largest known shape that a sequence ends in."""
    labels = np.empty(older.shape[1] - 1, np.int64)
    clicks, shape = labelled(sequence, labels), 0
    for age in range(clicks):
        larger = older[shape, labels[age]]
        if larger == 0:
            return shape
        shape = larger
    if len(sequence) == clicks and older[shape, len(labels)] > 0:
        shape = older[shape, len(labels)]
    return shape


@compiled
def paths(items: IntArray, lengths: IntArray, targets: IntArray, depth: int) -> tuple[npt.NDArray[np.int8], IntArray]:
    """Of B sequences laid end to end: the way to each one's shape [B, depth + 1], -1 where it is over, and the label of
    what came next [B]; ``depth``: an item without one."""
    ways, outcomes = np.full((len(lengths), depth + 1), -1, np.int8), np.full(len(lengths), depth)
    labels, start = np.empty(depth, np.int64), 0
    for example in range(len(lengths)):
        sequence = items[start : start + lengths[example]]
        clicks = labelled(sequence, labels)
        for age in range(clicks - 1, -1, -1):
            ways[example, age] = labels[age]
            if sequence[len(sequence) - 1 - age] == targets[example]:
                outcomes[example] = labels[age]
        if len(sequence) == clicks:
            ways[example, clicks] = depth
        start += lengths[example]
    return ways, outcomes


# What a session says about some items (srgnn/blend.py).


@compiled
def evidence(
    memory: Memory,
    habits: Habits,
    sequence: IntArray,
    most_voted: int,
    share_unit: float,
    catalogue: Items,
    vector: FloatArray,
) -> tuple[IntArray, FloatArray]:
    """Rows [n] and their features [n, 7], as srgnn.blend.Evidence tells of them; of the sequence and its ``vector`` [d]
    in a ``catalogue`` [V, d]."""
    voted, sums = votes(memory, sequence)
    clicked, ages, times = last_clicks(sequence)
    total = 0.0
    for vote in sums:
        total += vote
    if len(voted) > most_voted:
        voted, sums = k_largest(voted, sums, most_voted)
    rows, features = np.empty(len(voted) + len(clicked), np.int64), np.zeros((len(voted) + len(clicked), 7))
    table, place = empty_table(len(clicked)), np.full(len(clicked), -1)
    for i in range(len(clicked)):
        table[slot_of(table, clicked, clicked[i])] = i
    for i in range(len(voted)):
        share = sums[i] / total if total > 0 else 0.0  # votes weigh nothing where every session holds what they are for
        rows[i], features[i, 0] = voted[i], np.log1p(share / share_unit)
        own = table[slot_of(table, clicked, voted[i])]
        if own >= 0:
            place[own] = i
    found = len(voted)
    shape, told = shape_of(habits.older, sequence), habits.odds.shape[1]
    for i in range(len(clicked)):
        if place[i] < 0:
            place[i], rows[found] = found, clicked[i]
            found += 1
        of_own = features[place[i]]
        of_own[1], of_own[2], of_own[3], of_own[4] = 1.0, np.log1p(ages[i]), np.log(times[i]), ages[i] == 0
        label = len(clicked) - 1 - i  # items are in the order of their last clicks
        of_own[5] = habits.odds[shape, label] if label < told else RARE
        of_own[6] = dot(catalogue[clicked[i]], vector)
    return rows[:found], features[:found]


@compiled
def k_largest(rows: IntArray, values: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Those with the ``k`` largest values of more, of equal ones the smaller rows first; in any order."""
    least = np.partition(values, len(values) - k)[len(values) - k]
    chosen, best = np.empty(k, np.int64), np.empty(k)
    held = 0
    for i in range(len(rows)):
        if values[i] > least:
            chosen[held], best[held] = rows[i], values[i]
            held += 1
    equal = np.sort(rows[values == least])
    chosen[held:], best[held:] = equal[: k - held], least
    return chosen, best


@compiled
def bonuses(
    session_starts: IndexArray,
    clicked: IndexArray,
    clicked_at: IndexArray,
    item_starts: IndexArray,
    sessions: IndexArray,
    sessions_at: IndexArray,
    item_weight: FloatArray,
    cosine: bool,
    session_decay: float,
    neighbours: int,
    sample: int,
    linear: bool,
    click_decay: float,
    distance_decay: float,
    older: npt.NDArray[np.int32],
    odds: Items,
    items: IntArray,
    lengths: IntArray,
    most_voted: int,
    share_unit: float,
    weights: FloatArray,
    catalogue: Items,
    vectors: FloatArray,
) -> tuple[IntArray, IntArray, FloatArray]:
    """Of sequences laid end to end, [C] rows and [B] lengths, and their ``vectors`` [B, d] in a ``catalogue`` [V, d],
    as Pairs: features weighted by ``weights`` [7]. The first arguments are a :class:`Memory` and :class:`Habits`, field
    by field."""
    past = SessionIndex(session_starts, clicked, clicked_at, item_starts, sessions, sessions_at)
    memory = Memory(past, item_weight, cosine, session_decay, neighbours, sample, linear, click_decay, distance_decay)
    pairs = weighed(memory, Habits(older, odds), items, lengths, most_voted, share_unit, weights, catalogue, vectors)
    return pairs.sessions, pairs.rows, pairs.bonuses


class Pairs(NamedTuple):
    """M pairs of a session in the batch and a catalogue row, in the order of sessions where it is asked for."""

    sessions: IntArray
    """[M]."""
    rows: IntArray
    """[M]."""
    bonuses: FloatArray
    """[M]: what the session adds to the item's score."""


@compiled
def weighed(
    memory: Memory,
    habits: Habits,
    items: IntArray,
    lengths: IntArray,
    most_voted: int,
    share_unit: float,
    weights: FloatArray,
    catalogue: Items,
    vectors: FloatArray,
) -> Pairs:
    """The same, of whole tuples."""
    room = len(items) + most_voted * len(lengths)
    found_sessions, found_rows, scores = np.empty(room, np.int64), np.empty(room, np.int64), np.zeros(room)
    start = found = 0
    for session in range(len(lengths)):
        sequence = items[start : start + lengths[session]]
        rows, features = evidence(memory, habits, sequence, most_voted, share_unit, catalogue, vectors[session])
        for i in range(len(rows)):
            found_sessions[found], found_rows[found] = session, rows[i]
            for j in range(len(weights)):
                scores[found] += weights[j] * features[i, j]
            found += 1
        start += lengths[session]
    return Pairs(found_sessions[:found], found_rows[:found], scores[:found])


# Products of int8 vectors, exact in int32 (srgnn/scan.py).


class Searched(NamedTuple):
    """The catalogue, as rough scores are made of it."""

    items: Any
    """[R, d] in int8, R a multiple of GROUP; or [V, d] in float32."""
    offsets: Offsets
    """[R]: what is taken off the products of each row, as :func:`offsets_of` says."""


class Asking(NamedTuple):
    """b session vectors, laid out for products with items."""

    raised: Codes
    """[b, BYTES * chunks], for VNNI, which takes one side for numbers from 0 to 255: 128 more than the codes; else
    [0, 0]."""
    words: Any
    """[b, LANES * chunks] in int16 without it, else [0, 0]; or [b, d] in float32."""


@compiled
def asking(codes: Codes, native: bool) -> tuple[Codes, Words]:
    """The fields of :class:`Asking`, of codes [b, d]."""
    if native:
        return in_chunks(codes, BYTES, -128, np.int8(0)), np.empty((0, 0), np.int16)
    return np.empty((0, 0), np.int8), in_chunks(codes, LANES, 0, np.int16(0))


@compiled
def in_chunks(codes: Codes, lanes: int, flipped: int, zero: Any) -> Any:
    """[b, d] -> [b, lanes * chunks] of the type of ``zero``, each with its ``flipped`` bits flipped: the last chunk is
    for the *last* numbers of an item, with zeros for those that a chunk before it has multiplied already; so no chunk
    is a part of one."""
    b, d = codes.shape
    chunks = (d + lanes - 1) // lanes
    laid_out = np.full((b, lanes * chunks), zero)
    for session in range(b):
        for j in range(d):
            laid_out[session, place_in_chunks(j, d, lanes)] = codes[session, j] ^ flipped
    return laid_out


@compiled
def place_in_chunks(j: int, d: int, lanes: int) -> int:
    """Where :func:`in_chunks` puts number ``j`` of ``d``."""
    chunks = (d + lanes - 1) // lanes
    return j if j < lanes * (chunks - 1) else lanes * chunks - d + j


@compiled
def offsets_of(items: Codes, unanswerable: IntArray, native: bool) -> Offsets:
    """What is to be taken off products with items [R, d]: what they are too large by where codes are raised, and NEVER
    for what may not be answered: [R]."""
    rows, d = items.shape
    offsets = np.zeros(rows, np.int32)
    if native:
        for row in range(rows):
            total = 0
            for j in range(d):
                total += items[row, j]
            offsets[row] = 128 * total
    for row in unanswerable:
        offsets[row] += NEVER
    return offsets


def score_rows(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> None:
    """Rough scores of one session for rows from ``first`` on, as many as ``out`` [1, n] has room for; ``first`` and n
    multiples of ROWS. Of the type of ``out``; LOW or less, or -inf, where the item may not be answered."""
    raise TypeError("only compiled code can call this")


@overload(score_rows)
def _score_rows(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> Any:
    def of_codes(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> None:
        items, offsets = searched.items[first : first + out.shape[1]], searched.offsets[first : first + out.shape[1]]
        if len(asking.raised):
            products_natively(items, asking.raised[session : session + 1], offsets, out)
            return
        for row in range(0, out.shape[1], ROWS):
            made = products_of_rows(items, row, asking.words, session)
            for i in range(ROWS):
                out[0, row + i] = made[i] - offsets[row + i]

    def of_floats(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> None:
        vector = asking.words[session]
        for i in range(out.shape[1]):
            answered = first + i < len(searched.items) and not searched.offsets[first + i]
            out[0, i] = dot(searched.items[first + i], vector) if answered else -np.inf

    return of_codes if searched.types[0].dtype == types.int8 else of_floats


@compiled
def best_of_groups(
    items: Codes, offsets: Offsets, raised: Codes, words: Words, first_group: int, groups: int
) -> npt.NDArray[np.int32]:
    """The best rough score in each of some groups of :class:`Searched`, for :class:`Asking`: [b, groups].

    Not all of its scores: there are so many that to write them down, and to read them again, would take longer than
    to make those anew that matter.
    """
    rows = slice(first_group * GROUP, (first_group + groups) * GROUP)
    if len(raised) >= MANY:
        return best_of_groups_for_many(items[rows], offsets[rows], raised)
    bests = np.empty((max(len(raised), len(words)), groups), np.int32)
    if len(raised):
        best_for_few_natively(items[rows], raised, offsets[rows], bests)
        return bests
    for g in range(groups):
        for session in range(len(words)):
            best = LOWEST
            for row in range(rows.start + g * GROUP, rows.start + (g + 1) * GROUP, ROWS):
                made = products_of_rows(items, row, words, session)
                for i in range(ROWS):
                    best = max(best, made[i] - offsets[row + i])
            bests[session, g] = best
    return bests


@compiled
def best_of_groups_for_many(items: Codes, offsets: Offsets, raised: Codes) -> npt.NDArray[np.int32]:
    """The same by VNNI, LANES sessions at a time: each item's numbers meet those of all of them at once."""
    b, groups, d = len(raised), len(items) // GROUP, items.shape[1]
    bests, of_some = np.empty((b, groups), np.int32), np.empty((groups, LANES), np.int32)
    packed = np.zeros(((d + 3) // 4, LANES, 4), np.int8)  # four numbers of each session side by side
    for start in range(0, b, LANES):
        some = min(LANES, b - start)
        for session in range(some):
            for j in range(d):
                at = place_in_chunks(j, d, 4)
                packed[at // 4, session, at % 4] = raised[start + session, place_in_chunks(j, d, BYTES)]
        best_for_many_natively(items, packed, offsets, of_some)
        for session in range(some):
            for g in range(groups):
                bests[start + session, g] = of_some[g, session]
    return bests


@compiled
def largest(scores: Any) -> Any:
    """Of one group."""
    found = scores[0]
    for r in range(1, len(scores)):  # nothing else in this loop, or it is not compiled to vectors
        found = max(found, scores[r])
    return found


def generate_products(typing: Any, items: Any, first: Any, codes: Any, session: Any) -> Any:
    """Of ROWS items [R, d], from ``first`` on, and one session's ``codes`` [b, LANES * chunks]: that many int32.

    Processors without VNNI have an instruction that multiplies int16 in pairs and adds each pair up in int32
    (``pmaddwd`` since MMX). LLVM finds it in this loop, written for it as vectors; numba's own loops over numbers
    become vectors of half the width with a scalar rest, and take twice as long.
    """
    if not items.layout == codes.layout == "C":
        raise TypingError("rows must follow one another in memory")

    def generate(context: Any, build: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        items_array, codes_array = (
            context.make_array(type_)(context, build, value)
            for type_, value in ((items, arguments[0]), (codes, arguments[2]))
        )
        d, width = (build.extract_value(array.shape, 1) for array in (items_array, codes_array))
        rows = [
            build.gep(items_array.data, [build.mul(build.add(arguments[1], _INT64(row)), d)]) for row in range(ROWS)
        ]
        session_codes = build.gep(codes_array.data, [build.mul(arguments[3], width)])

        def add_chunk(sums: list[Any], item_at: Any, code_at: Any) -> list[Any]:
            code = load_wide(build, session_codes, code_at, _INT16)
            products = [build.mul(load_wide(build, row, item_at, _INT8), code) for row in rows]
            return [build.add(total, in_pairs(build, each)) for total, each in zip(sums, products, strict=True)]

        slots = [cgutils.alloca_once_value(build, ir.Constant(_SUMS, None)) for _ in rows]
        last = build.sub(width, _INT64(LANES))
        with cgutils.for_range_slice(build, _INT64(0), last, _INT64(LANES), inc=True) as (at, _):
            for slot, total in zip(slots, add_chunk([build.load(slot) for slot in slots], at, at), strict=True):
                build.store(total, slot)
        sums = add_chunk([build.load(slot) for slot in slots], build.sub(d, _INT64(LANES)), last)
        add_up = cgutils.get_or_insert_function(
            build.module, ir.FunctionType(_INT32, [_SUMS]), f"llvm.vector.reduce.add.v{LANES // 2}i32"
        )
        return context.make_tuple(build, signature.return_type, [build.call(add_up, [each]) for each in sums])

    return types.UniTuple(types.int32, ROWS)(items, first, codes, session), generate


products_of_rows: Any = intrinsic(generate_products)


def load_wide(build: ir.IRBuilder, pointer: Any, at: Any, of: ir.IntType) -> Any:
    """LANES numbers from ``at`` on, as int32: LLVM sees how small they are, and multiplies them as int16."""
    vector = build.bitcast(build.gep(pointer, [at]), ir.VectorType(of, LANES).as_pointer())
    return build.sext(build.load(vector, align=of.width // 8), _PRODUCTS)


def in_pairs(build: ir.IRBuilder, products: Any) -> Any:
    """Each even one and its odd neighbour added up."""
    even, odd = (
        build.shuffle_vector(products, ir.Constant(_PRODUCTS, ir.Undefined), ir.Constant(_SUMS, list(lanes)))
        for lanes in (range(0, LANES, 2), range(1, LANES, 2))
    )
    return build.add(even, odd)


def native(write: Callable[..., None]) -> Any:
    """An intrinsic that calls a function of its own, with pointers to four arrays and the shapes of the first two;
    ``write`` writes its body, given these."""
    pointers = [each.as_pointer() for each in (_INT8, _INT8, _INT32, _INT32)]
    name = f"srgnn_{write.__name__}"

    def function(module: ir.Module) -> ir.Function:
        if name in module.globals:
            return module.globals[name]
        made = ir.Function(module, ir.FunctionType(ir.VoidType(), [*pointers, *[_INT64] * 4]), name)
        made.linkage = "internal"
        made.attributes.add("noinline")
        set.add(made.attributes, INSTRUCTIONS)  # llvmlite knows no attributes that have a value
        build = ir.IRBuilder(made.append_basic_block())
        write(build, *made.args)
        build.ret_void()
        return made

    def typed(typing: Any, items: Any, codes: Any, offsets: Any, out: Any) -> Any:
        if not items.layout == codes.layout == offsets.layout == out.layout == "C":
            raise TypingError("rows must follow one another in memory")

        def generate(context: Any, build: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            arrays = [
                context.make_array(kind)(context, build, value)
                for kind, value in zip(signature.args, arguments, strict=True)
            ]
            shapes = [size for i in (0, 1) for size in cgutils.unpack_tuple(build, arrays[i].shape)[:2]]
            if platform.machine() in X86:  # no other compiler knows the instruction, and nobody asks for it there
                build.call(function(build.module), [*(each.data for each in arrays), *shapes])
            return context.get_dummy_value()

        return types.none(items, codes, offsets, out), generate

    return intrinsic(typed)


@native
def products_natively(
    build: ir.IRBuilder, items: Any, codes: Any, offsets: Any, out: Any, rows: Any, d: Any, _: Any, width: Any
) -> None:
    """Products of items [R, d] and one session's ``codes`` [1, BYTES * chunks], 0 to 255, less ``offsets`` [R]: to
    [1, R]."""
    with cgutils.for_range_slice(build, _INT64(0), rows, _INT64(ROWS), inc=True) as (row, _):
        scores = of_rows(build, items, offsets, row, d, codes, width)
        build.store(scores, build.bitcast(build.gep(out, [row]), _FOUR.as_pointer()), align=4)


@native
def best_for_few_natively(
    build: ir.IRBuilder, items: Any, codes: Any, offsets: Any, out: Any, rows: Any, d: Any, sessions: Any, width: Any
) -> None:
    """The best of them in each group of rows, for each of b sessions: to [b, R / GROUP]."""
    groups = build.udiv(rows, _INT64(GROUP))
    kind = ir.FunctionType(_INT32, [_FOUR])
    largest = cgutils.get_or_insert_function(build.module, kind, f"llvm.vector.reduce.smax.v{ROWS}i32")
    with cgutils.for_range(build, groups) as group, cgutils.for_range(build, sessions) as session:
        best = cgutils.alloca_once_value(build, ir.Constant(_FOUR, [LOWEST] * ROWS))
        of_session = build.gep(codes, [build.mul(session.index, width)])
        first = build.mul(group.index, _INT64(GROUP))
        end = build.add(first, _INT64(GROUP))
        with cgutils.for_range_slice(build, first, end, _INT64(ROWS), inc=True) as (row, _):
            scores = of_rows(build, items, offsets, row, d, of_session, width)
            build.store(larger(build, scores, build.load(best)), best)
        place = build.gep(out, [build.add(build.mul(session.index, groups), group.index)])
        build.store(build.call(largest, [build.load(best)]), place)


@native
def best_for_many_natively(
    build: ir.IRBuilder, items: Any, codes: Any, offsets: Any, out: Any, rows: Any, d: Any, chunks: Any, _: Any
) -> None:
    """The same for ``codes`` [chunks, LANES, 4]: to [R / GROUP, LANES]."""
    last, width = build.sub(d, _INT64(4)), build.mul(chunks, _INT64(4))
    with cgutils.for_range_slice(build, _INT64(0), rows, _INT64(GROUP), inc=True) as (first, _):
        best = cgutils.alloca_once_value(build, ir.Constant(_WORDS, [LOWEST] * LANES))
        end = build.add(first, _INT64(GROUP))
        with cgutils.for_range_slice(build, first, end, _INT64(ROWS_OF_MANY), inc=True) as (row, _):
            some = [build.add(row, _INT64(i)) for i in range(ROWS_OF_MANY)]
            pointers = [build.gep(items, [build.mul(each, d)]) for each in some]
            less = [build.neg(build.load(build.gep(offsets, [each]))) for each in some]
            slots = [cgutils.alloca_once_value(build, in_all_lanes(build, each)) for each in less]
            with cgutils.for_range_slice(build, _INT64(0), width, _INT64(4), inc=True) as (start, _):
                of_sessions = load(build, codes, build.mul(start, _INT64(LANES)), _WORDS)
                at = earlier(build, start, last)
                for slot, item in zip(slots, pointers, strict=True):
                    numbers = in_all_lanes(build, load(build, item, at, _INT32))
                    build.store(four_products(build, build.load(slot), of_sessions, numbers), slot)
            for slot in slots:
                build.store(larger(build, build.load(slot), build.load(best)), best)
        place = build.gep(out, [build.mul(build.udiv(first, _INT64(GROUP)), _INT64(LANES))])
        build.store(build.load(best), build.bitcast(place, _WORDS.as_pointer()), align=4)


def of_rows(build: ir.IRBuilder, items: Any, offsets: Any, row: Any, d: Any, codes: Any, width: Any) -> Any:
    """Products of ROWS items with one session's ``codes`` [BYTES * chunks], less their ``offsets``: [ROWS]."""
    last = build.sub(d, _INT64(BYTES))
    rows = [build.gep(items, [build.mul(build.add(row, _INT64(i)), d)]) for i in range(ROWS)]
    slots = [cgutils.alloca_once_value(build, ir.Constant(_WORDS, [0] * LANES)) for _ in rows]
    with cgutils.for_range_slice(build, _INT64(0), width, _INT64(BYTES), inc=True) as (start, _):
        numbers, at = load(build, codes, start, _WORDS), earlier(build, start, last)
        for slot, item in zip(slots, rows, strict=True):
            build.store(four_products(build, build.load(slot), numbers, load(build, item, at, _WORDS)), slot)
    return build.sub(four_sums(build, [build.load(slot) for slot in slots]), load(build, offsets, row, _FOUR))


def load(build: ir.IRBuilder, pointer: Any, at: Any, kind: Any) -> Any:
    """A number or a vector of them, wherever it lies."""
    return build.load(build.bitcast(build.gep(pointer, [at]), kind.as_pointer()), align=1)


def four_products(build: ir.IRBuilder, sums: Any, raised: Any, numbers: Any) -> Any:
    """``sums`` [LANES], and to each the products of four numbers added."""
    kind = ir.FunctionType(_WORDS, [_WORDS] * 3)
    instruction = cgutils.get_or_insert_function(build.module, kind, "llvm.x86.avx512.vpdpbusd.512")
    return build.call(instruction, [sums, raised, numbers])


def earlier(build: ir.IRBuilder, at: Any, last: Any) -> Any:
    """Where a chunk of an item begins."""
    return build.select(build.icmp_signed("<", at, last), at, last)


def larger(build: ir.IRBuilder, one: Any, other: Any) -> Any:
    """Of two vectors, number by number."""
    return build.select(build.icmp_signed(">", one, other), one, other)


def in_all_lanes(build: ir.IRBuilder, number: Any) -> Any:
    """[LANES] times the same int32."""
    undefined = ir.Constant(_WORDS, ir.Undefined)
    first = build.insert_element(undefined, number, ir.Constant(_INT32, 0))
    return build.shuffle_vector(first, undefined, ir.Constant(_WORDS, [0] * LANES))


def four_sums(build: ir.IRBuilder, vectors: list[Any]) -> Any:
    """Of four vectors, the sum of the 16 numbers of each: together, with half the shuffles of one after the other."""

    def of_each_four(one: Any, other: Any, low: list[int], high: list[int]) -> Any:
        halves = [
            build.shuffle_vector(
                one, other, ir.Constant(_WORDS, [at + four for four in range(0, 16, 4) for at in half])
            )
            for half in (low, high)
        ]
        return build.add(*halves)

    pairs = [of_each_four(one, other, [0, 16, 1, 17], [2, 18, 3, 19]) for one, other in (vectors[:2], vectors[2:])]
    fours = of_each_four(pairs[0], pairs[1], [0, 1, 16, 17], [2, 3, 18, 19])
    undefined = ir.Constant(_WORDS, ir.Undefined)
    parts = [
        build.shuffle_vector(fours, undefined, ir.Constant(_FOUR, list(range(first, first + 4))))
        for first in (0, 4, 8, 12)
    ]
    return build.add(build.add(parts[0], parts[1]), build.add(parts[2], parts[3]))


# From rough scores to the best k (srgnn/catalogue.py).


class Groups(NamedTuple):
    """What scores of G groups of rows are worth, and how far off they may be."""

    scales: FloatArray
    """[G]: a rough score times this is the score in the session's unit."""
    longest: FloatArray
    """[G]: length of the longest item."""
    residual: FloatArray
    """[G]: length of the most that rounding took from an item."""


class Margins(NamedTuple):
    """Of b sessions: a score in a group is off by ``on_longest * longest + on_residual * residual`` at most."""

    on_longest: FloatArray
    """[b]."""
    on_residual: FloatArray
    """[b]."""
    units: FloatArray
    """[b]: a rough score times the group's scale times this is the score of the model."""


class Block(NamedTuple):
    """The best rough score in each of G groups for b sessions, and what single ones are made of."""

    bests: Rough
    """[b, G]."""
    groups: Groups
    first_row: int
    low: float
    """No answer has a rough score that is not above it."""
    searched: Searched
    """The whole catalogue."""
    asking: Asking


@compiled
def rounded(vectors: FloatArray, roundings: float) -> tuple[npt.NDArray[np.int8], FloatArray, FloatArray, FloatArray]:
    """Session vectors [b, d] as int8, and how far off scores of these are, the fields of :class:`Margins`; with
    ``roundings``, the relative error of scores in float64."""
    b, d = vectors.shape
    codes, length, rest, unit = np.empty((b, d), np.int8), np.empty(b), np.empty(b), np.empty(b)
    for session in range(b):
        unit[session] = max(np.abs(vectors[session]).max() / 127.0, 1e-300)
        squares = rests = 0.0
        for j in range(d):
            scaled = vectors[session, j] / unit[session]  # vector = unit * (code + rest)
            code = np.rint(scaled)
            codes[session, j] = np.int8(code)
            squares += code * code
            rests += (scaled - code) * (scaled - code)
        length[session] = np.sqrt(squares)
        rest[session] = np.sqrt(rests) + roundings * length[session]
    return codes, rest, length, unit


@compiled
def best_of_block(
    bests: Rough,
    scales: FloatArray,
    longest: FloatArray,
    residual: FloatArray,
    first_row: int,
    low: float,
    searched_items: Any,
    offsets: Offsets,
    raised: Codes,
    words: Any,
    on_longest: FloatArray,
    on_residual: FloatArray,
    units: FloatArray,
    excluded_sessions: IntArray,
    excluded_rows: IntArray,
    excluded_bonuses: FloatArray,
    bonus_sessions: IntArray,
    bonus_rows: IntArray,
    bonuses: FloatArray,
    floors: FloatArray,
    items: Items,
    vectors: FloatArray,
) -> tuple[IntArray, FloatArray, int]:
    """The k best rows of a :class:`Block` for each session, their exact scores, as :func:`best_rows`, and how many were
    scored exactly. The rest is :class:`Groups`, :class:`Searched`, :class:`Asking`, :class:`Margins`, :class:`Pairs`
    twice, field by field, and :func:`within_reach` tells of it."""
    searched, asking = Searched(searched_items, offsets), Asking(raised, words)
    block = Block(bests, Groups(scales, longest, residual), first_row, low, searched, asking)
    margins = Margins(on_longest, on_residual, units)
    excluded = Pairs(excluded_sessions, excluded_rows, excluded_bonuses)
    reach = within_reach(block, margins, excluded, Pairs(bonus_sessions, bonus_rows, bonuses), floors)
    rows, scores = best_rows(items, vectors, reach, floors.shape[1])
    return rows, scores, len(reach.rows)


@compiled
def within_reach(block: Block, margins: Margins, excluded: Pairs, bonuses: Pairs, floors: FloatArray) -> Pairs:
    """Every pair of a block that may be among the best k of its session, without those ``excluded``. Pairs are in the
    order of sessions.

    An item is no better than its rough score plus the error; the k-th largest of rough scores less their error is a
    floor that the best k do not fall below: ``floors`` [b, k] are the k largest so far, as :func:`keep` keeps them.
    """
    groups, size = block.groups, block.bests.shape[1]
    own = Own(np.zeros(size * GROUP, np.bool_), np.zeros(size, np.bool_))
    sessions, rows, added = empty_pairs(len(bonuses.rows) + 64 * len(block.bests))
    most, error, with_bonus = np.empty(size), np.empty(size), np.empty(len(bonuses.rows))
    found = stop = stop_excluded = 0
    for session in range(len(block.bests)):
        worth(block.bests[session], groups, margins.on_longest[session], margins.on_residual[session], most, error)
        own.groups[:] = block.bests[session] <= block.low
        start, start_excluded = stop, stop_excluded
        while stop_excluded < len(excluded.rows) and excluded.sessions[stop_excluded] == session:
            take_out(own, excluded.rows[stop_excluded] - block.first_row)
            stop_excluded += 1
        while stop < len(with_bonus) and bonuses.sessions[stop] == session:
            there = take_out(own, bonuses.rows[stop] - block.first_row)
            with_bonus[stop] = bonuses.bonuses[stop] / margins.units[session] if there else -np.inf
            stop += 1
        raise_floor(block, session, error, floors[session], most, own)
        raise_floor_by_bonuses(
            block, session, error, floors[session], most, bonuses.rows[start:stop], with_bonus[start:stop]
        )
        floor = floors[session, 0]
        for i in range(start, stop):
            if with_bonus[i] >= floor and with_bonus[i] != -np.inf:
                sessions[found], rows[found], added[found] = session, bonuses.rows[i], bonuses.bonuses[i]
                found += 1
        most += error
        room = found + GROUP * np.sum(most >= floor) + len(with_bonus)
        if room > len(rows):
            more = empty_pairs(room)
            sessions, rows = np.append(sessions, more[0]), np.append(rows, more[1])
            added = np.append(added, more[2])
        first, found = found, look_into(block, session, error, floor, most, own, rows, found)
        sessions[first:found] = session
        for i in range(start_excluded, stop_excluded):
            put_back(own, excluded.rows[i] - block.first_row)
        for i in range(start, stop):
            put_back(own, bonuses.rows[i] - block.first_row)
    return Pairs(sessions[:found], rows[:found], added[:found])


@compiled
def empty_pairs(room: int | np.integer[Any]) -> tuple[IntArray, IntArray, FloatArray]:
    """The fields of Pairs, to be written to; without bonuses."""
    return np.empty(room, np.int64), np.empty(room, np.int64), np.zeros(room)


class Own(NamedTuple):
    """What of a block one session sees otherwise than the next: items that it may not be answered, or has a bonus for.

    A group that holds one still tells how good the others may be, but no longer how good one of them is.
    """

    rows: npt.NDArray[np.bool_]
    """[G * GROUP]."""
    groups: npt.NDArray[np.bool_]
    """[G]: also those without any answer."""


@compiled
def take_out(own: Own, row: int) -> bool:
    """Whether a row of the block was there until now."""
    if row < 0 or row >= len(own.rows) or own.rows[row]:
        return False
    own.rows[row] = own.groups[row // GROUP] = True
    return True


@compiled
def put_back(own: Own, row: int) -> None:
    """For the next session."""
    if 0 <= row < len(own.rows):
        own.rows[row] = False


@compiled
def worth(
    bests: Rough, groups: Groups, on_longest: float, on_residual: float, most: FloatArray, error: FloatArray
) -> None:
    """The scores of one session's ``bests`` [G] in its unit, and how far off those of each group may be: [G] each."""
    scales, longest, residual = groups.scales, groups.longest, groups.residual
    for g in range(len(bests)):
        most[g] = bests[g] * scales[g]
        error[g] = on_longest * longest[g] + on_residual * residual[g]


@compiled
def raise_floor(block: Block, session: int, error: FloatArray, floors: FloatArray, best: FloatArray, own: Own) -> None:
    """Count what a session may be answered from this block. Where there are k groups of which nothing was taken out,
    the ``best`` of each [G] stands in for all; ``error`` [G]."""
    if len(best) - own.groups.sum() >= len(floors):
        for g in range(len(best)):
            if best[g] - error[g] > floors[0] and not own.groups[g]:
                keep(floors, best[g] - error[g])
        return
    scores = np.empty((1, GROUP), block.bests.dtype)
    for g in range(len(best)):
        score_rows(block.searched, block.asking, session, block.first_row + g * GROUP, scores)
        for r in range(GROUP):
            if scores[0, r] > block.low and not own.rows[g * GROUP + r]:
                keep(floors, scores[0, r] * block.groups.scales[g] - error[g])


@compiled
def keep(largest: FloatArray, value: float) -> None:
    """One more of the ``largest`` values seen so far, a heap with the least of them at place 0."""
    if not value > largest[0]:
        return
    place, below = 0, 1
    while below < len(largest):
        if below + 1 < len(largest) and largest[below + 1] < largest[below]:
            below += 1
        if not largest[below] < value:
            break
        largest[place] = largest[below]
        place, below = below, 2 * below + 1
    largest[place] = value


@compiled
def raise_floor_by_bonuses(
    block: Block,
    session: int,
    error: FloatArray,
    floors: FloatArray,
    best: FloatArray,
    rows: IntArray,
    bonuses: FloatArray,
) -> None:
    """Count the ``rows`` with ``bonuses`` in the session's unit, and write there the most that each may score: -inf
    where it may not be answered, or would be below the floor even as the ``best`` of its group, as most would."""
    scores = np.empty((1, ROWS), block.bests.dtype)
    for i in range(len(rows)):
        bonus, inside = bonuses[i], rows[i] - block.first_row
        if bonus == -np.inf:
            continue
        g, bonuses[i] = inside // GROUP, -np.inf
        margin = error[g] + abs(bonus) * BONUS_ROUNDINGS
        if best[g] + bonus + margin < floors[0]:
            continue
        score_rows(block.searched, block.asking, session, rows[i] - inside % ROWS, scores)
        if scores[0, inside % ROWS] > block.low:
            score = scores[0, inside % ROWS] * block.groups.scales[g] + bonus
            keep(floors, score - margin)
            bonuses[i] = score + margin


@compiled
def look_into(
    block: Block, session: int, error: FloatArray, floor: float, most: FloatArray, own: Own, rows: IntArray, found: int
) -> int:
    """Write to ``rows``, of which ``found`` are written, those of all groups that may have one above the ``floor``, by
    the ``most`` that it may score [G]; how many there are then."""
    scores = np.empty((1, GROUP), block.bests.dtype)
    for g in range(len(most)):
        if most[g] < floor or block.bests[session, g] <= block.low:
            continue
        first = block.first_row + g * GROUP
        score_rows(block.searched, block.asking, session, first, scores)
        for r in range(GROUP):
            enough = scores[0, r] > block.low and scores[0, r] * block.groups.scales[g] + error[g] >= floor
            if enough and not own.rows[g * GROUP + r]:
                rows[found] = first + r
                found += 1
    return found


@compiled
def best_of_scores(rough: Items, searched_rows: int, unanswerable: IntArray) -> Items:
    """The best in each group of scores [b, R] of float32, of which ``searched_rows`` are items: [b, R / GROUP]; -inf is
    written over those of others and of what may not be answered."""
    rough[:, searched_rows:] = -np.inf
    bests = np.empty((len(rough), rough.shape[1] // GROUP), np.float32)
    for session in range(len(rough)):
        for row in unanswerable:
            rough[session, row] = -np.inf
        for g in range(bests.shape[1]):
            bests[session, g] = largest(rough[session, g * GROUP : (g + 1) * GROUP])
    return bests


@compiled
def best_rows(items: Items, vectors: FloatArray, pairs: Pairs, k: int) -> tuple[IntArray, FloatArray]:
    """The k best of each session by (exact score falling, row rising), their scores; -1 and -inf for none: [b, k]."""
    rows, scores = np.full((len(vectors), k), -1), np.full((len(vectors), k), -np.inf)
    held = np.zeros(len(vectors), np.int64)
    for i in range(len(pairs.rows)):
        session, row = pairs.sessions[i], pairs.rows[i]
        score = dot(items[row], vectors[session]) + pairs.bonuses[i]
        held[session] = offer(scores[session], rows[session], held[session], score, row)
    for session in range(len(vectors)):
        order(scores[session], rows[session], held[session])
    return rows, scores


@compiled
def exact_scores(items: Items, rows: IntArray, vectors: FloatArray, sessions: IntArray) -> FloatArray:
    """Scores of items [V, d] for vectors [b, d], of M pairs: [M]."""
    scores = np.empty(len(rows))
    for i in range(len(rows)):
        scores[i] = dot(items[rows[i]], vectors[sessions[i]])
    return scores


@compiled
def counted(scores: Items, items: int, low: Items, high: Items) -> tuple[IntArray, IntArray]:
    """Of the first ``items`` scores of each session [b, >= items]: how many are above ``high`` [b], how many are
    ``low`` [b] or more: [b] each."""
    above, from_low = np.empty(len(scores), np.int64), np.empty(len(scores), np.int64)
    for session in range(len(scores)):
        bottom, top = low[session], high[session]
        more = reached = np.int32(0)  # of the scores' width, so that both are counted in vectors
        for item in range(items):
            score = scores[session, item]
            more = np.int32(more + np.int32(score > top))
            reached = np.int32(reached + np.int32(score >= bottom))
        above[session], from_low[session] = more, reached
    return above, from_low


@compiled
def dot(item: Items, vector: FloatArray) -> float:
    """In float64, always added up in this order, so that equal items tie wherever they are scored."""
    a = b = c = e = 0.0  # four sums at a time: one alone waits for each addition
    for j in range(0, len(vector) - 3, 4):
        a += item[j] * vector[j]
        b += item[j + 1] * vector[j + 1]
        c += item[j + 2] * vector[j + 2]
        e += item[j + 3] * vector[j + 3]
    for j in range(len(vector) - len(vector) % 4, len(vector)):
        a += item[j] * vector[j]
    return (a + b) + (c + e)


# From clicks to the best k, in a thread that needs no interpreter (srgnn/engine.py).


class Plan(NamedTuple):
    """All that an answer depends on besides the question: a model, and what is beside it."""

    encoder: Encoder
    memory: Memory
    habits: Habits
    weights: FloatArray
    """[7], as of :func:`bonuses`."""
    trend: float
    """The last number of all vectors, where items have one for it."""
    blended: bool
    """Whether there is anything beside the model."""
    most_voted: int
    share_unit: float
    items: Items
    """[V, d]."""
    codes: Codes
    """[G * GROUP, d]: the items in int8."""
    groups: Groups
    roundings: float
    offsets: Offsets
    """[G * GROUP], as of :func:`offsets_of`."""
    native: bool
    """As of :func:`asking`."""


class Box(NamedTuple):
    """A question and its answer, in memory that both sides see."""

    sizes: IntArray
    """b sequences, their clicks, k and the number of excluded items; b < 0 after a failure."""
    clicked: IntArray
    """[room for clicks]: the sequences end to end."""
    lengths: IntArray
    """[room for sequences]."""
    excluded_sessions: IntArray
    """[room for exclusions], rising."""
    excluded_rows: IntArray
    rows: IntArray
    """[room for sequences, room for k]: the answer."""
    scores: FloatArray


_pipe: Any = types.int64(types.int32, types.voidptr, types.int64)
_read: Any = types.ExternalFunction("read", _pipe)
_write: Any = types.ExternalFunction("write", _pipe)


@compiled
def attend(plan: Plan, box: Box, questions: int, answers: int) -> None:
    """Answer what is in the ``box`` whenever a byte can be read from the pipe ``questions``, and write one to
    ``answers``; until the pipe is closed. Every signal must be blocked: they interrupt what waits."""
    byte = np.zeros(1, np.uint8)
    while _read(questions, byte.ctypes, 1) == 1:
        answer(plan, box)
        _write(answers, byte.ctypes, 1)


@compiled
def answer(plan: Plan, box: Box) -> None:
    """What srgnn.scorer and srgnn.blend do one after the other, for a batch that is one block."""
    b, clicks, k, left_out = box.sizes[0], box.sizes[1], box.sizes[2], box.sizes[3]
    clicked, lengths, e, groups = box.clicked[:clicks], box.lengths[:b], plan.encoder, plan.groups
    vectors, _ = encode(
        plan.items, clicked, lengths, e.means, e.hidden, e.bias, e.hidden_bias, e.positions, e.last, e.click,
        e.attention_bias, e.query, e.merge, e.merge_bias, e.steps, e.length,
    )  # fmt: skip
    extra = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    if plan.blended:
        extra = weighed(
            plan.memory, plan.habits, clicked, lengths, plan.most_voted, plan.share_unit, plan.weights, plan.items,
            vectors,
        )  # fmt: skip
    vectors[:, len(e.hidden) :] = plan.trend
    codes, on_longest, on_residual, units = rounded(vectors, plan.roundings)
    raised, words = asking(codes, plan.native)
    rows, scores, _ = best_of_block(
        best_of_groups(plan.codes, plan.offsets, raised, words, 0, len(groups.scales)),
        groups.scales, groups.longest, groups.residual, 0, LOW, plan.codes, plan.offsets, raised, words,
        on_longest, on_residual, units, box.excluded_sessions[:left_out], box.excluded_rows[:left_out],
        np.zeros(left_out), extra.sessions, extra.rows, extra.bonuses, np.full((b, k), -np.inf), plan.items, vectors,
    )  # fmt: skip
    box.rows[:b, :k], box.scores[:b, :k] = rows, scores
