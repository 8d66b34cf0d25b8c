"""From clicks to the best k, in a thread that needs no interpreter (:mod:`srgnn.engine`)."""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..compiled import compiled
from . import Codes, FloatArray, IntArray, Items, Offsets
from .encoder import Encoder, encode
from .evidence import Pairs, weighed
from .habits import Habits
from .layout import LOW, asking
from .neighbours import Memory
from .products import best_of_groups
from .search import Groups, best_of_block, rounded


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
        plan.items, clicked, lengths, e.maps, e.map_biases, e.bias, e.positions, e.last, e.click,
        e.attention_bias, e.query, e.merge, e.merge_bias, e.steps, e.length, e.ready, e.ready_at,
    )  # fmt: skip
    extra = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    if plan.blended:
        extra = weighed(
            plan.memory, plan.habits, clicked, lengths, plan.most_voted, plan.share_unit, plan.weights, plan.items,
            vectors,
        )  # fmt: skip
    vectors[:, len(e.query) :] = plan.trend
    codes, on_longest, on_residual, units = rounded(vectors, plan.roundings)
    raised, words = asking(codes, plan.native)
    rows, scores, _ = best_of_block(
        best_of_groups(plan.codes, plan.offsets, raised, words, 0, len(groups.scales)),
        groups.scales, groups.longest, groups.residual, 0, LOW, plan.codes, plan.offsets, raised, words,
        on_longest, on_residual, units, box.excluded_sessions[:left_out], box.excluded_rows[:left_out],
        np.zeros(left_out), extra.sessions, extra.rows, extra.bonuses, np.full((b, k), -np.inf), plan.items, vectors,
    )  # fmt: skip
    box.rows[:b, :k], box.scores[:b, :k] = rows, scores
