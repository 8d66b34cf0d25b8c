"""Session graphs (:mod:`srgnn.graph`)."""

from typing import Any

import numpy as np

from ..compiled import compiled
from . import IntArray, Items
from .table import distinct, slot_of


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
