"""A trend that is learnt: how much items that were clicked so often, so lately, since so long are clicked next.

:mod:`srgnn.trend` computes it by a formula, from clicks of one kind of late. How much of an item's demand is left when
it was clicked a hundred times, but hardly this week, is a question to the log: a small network answers it, from the
item's clicks, how late they came at four scales of time, and when the first one did. It learns from the log itself:
what was known of each item at some moments of its second half, and how often it was clicked right after. What it learns
is a correction of the formula, one number of each item as that is, so that it costs nothing when serving.

No validation session teaches it, since a network knows many items by their clicks alone, and would know by heart what
was liked on those days (docs/log.md). They only say how much its forecast counts, as they do of the formula's.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from srgnn.loops import FloatArray
from srgnn.progress import progress
from srgnn.sequence import IntArray
from srgnn.trend import PRIOR_CLICKS, trend

DECAYS = (0.005, 0.02, 0.05, 0.2)
"""Of the trends that it is made of: shares of all sessions."""
NUMBERS = len(DECAYS) + 2
"""Of each item."""
NEW = 1e-3
"""Share of all sessions: items whose first click is less old are about equally new."""
MOMENTS = np.linspace(0.6, 0.9, 31)
"""Shares of the sessions after which it looks ahead."""
AHEAD = 0.1
"""Share of the sessions that it looks at."""
FEWEST_SESSIONS = 10_000
"""Without so many the formula stays."""
MOST = 1_000_000
"""Items and moments to learn from."""
HIDDEN = 32
EPOCHS = 8
BATCH = 2048
LEARNING_RATE = 3e-3


class Demand(NamedTuple):
    """M items, each at some moment, and what became of them."""

    pace: Tensor
    """Float32 [M, NUMBERS]."""
    expected: Tensor
    """Float32 [M]: the logarithm of the clicks that the formula expects."""
    clicks: Tensor
    """Float32 [M]: those that came."""


def learnt_trend(items: IntArray, offsets: IntArray, num_items: int, seed: int) -> FloatArray:
    """From sessions laid end to end, the oldest first, ``items`` [C] and ``offsets`` [S + 1]: [V], in e-folds of demand
    as :func:`srgnn.trend.trend` is, and that itself where there are few sessions."""
    formula = trend(items, offsets, num_items)
    if len(offsets) - 1 < FEWEST_SESSIONS:
        return formula
    demand = demand_of(items, offsets, num_items, seed)
    mean, spread = demand.pace.mean(0), demand.pace.std(0) + 1e-6
    net = _learn(demand._replace(pace=(demand.pace - mean) / spread), seed)
    with torch.no_grad():
        now = torch.from_numpy(pace(items, offsets, num_items)).float()
        correction: FloatArray = net((now - mean) / spread).squeeze(-1).double().numpy()
    never_clicked = np.bincount(items, minlength=num_items) == 0  # they are not answered, and it has seen none
    return np.where(never_clicked, 0.0, formula + correction)


def pace(items: IntArray, offsets: IntArray, num_items: int) -> FloatArray:
    """The logarithm of each item's clicks, its trends, and the logarithm of the share of sessions since the first one
    that has it, 0 for an item that none has: [V, NUMBERS]."""
    num_sessions = len(offsets) - 1
    first = np.full(num_items, num_sessions)
    np.minimum.at(first, items, np.repeat(np.arange(num_sessions), np.diff(offsets)))
    age = (num_sessions - first) / num_sessions
    clicks = np.log(np.bincount(items, minlength=num_items) + PRIOR_CLICKS)
    trends = (trend(items, offsets, num_items, decay) for decay in DECAYS)
    return np.column_stack([clicks, *trends, np.log(age + NEW)])


def demand_of(items: IntArray, offsets: IntArray, num_items: int, seed: int) -> Demand:
    """What became of all items that had been clicked by each of MOMENTS; of very many a part, drawn at random."""
    num_sessions, rng = len(offsets) - 1, np.random.default_rng(seed)
    room, parts = MOST // len(MOMENTS), []
    with progress("  trend: moments", len(MOMENTS)) as advance:
        for share in MOMENTS:
            now, end = int(share * num_sessions), int((share + AHEAD) * num_sessions)
            past, sessions = items[: offsets[now]], offsets[: now + 1]
            clicks = np.bincount(items[offsets[now] : offsets[end]], minlength=num_items)
            known = np.bincount(past, minlength=num_items)
            level = np.log(known + PRIOR_CLICKS) + trend(past, sessions, num_items)
            rows = np.flatnonzero(known)
            expected = level[rows] + np.log(max(1, clicks[rows].sum()) / np.exp(level[rows]).sum())
            drawn = rng.permutation(len(rows))[:room]
            parts.append((pace(past, sessions, num_items)[rows[drawn]], expected[drawn], clicks[rows[drawn]]))
            advance(1)
    return Demand(*(torch.from_numpy(np.concatenate(each)).float() for each in zip(*parts, strict=True)))


def _learn(demand: Demand, seed: int) -> nn.Sequential:
    """The correction that makes the clicks most likely, were they Poisson distributed: [M, NUMBERS] -> [M, 1]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(NUMBERS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
    nn.init.zeros_(layers[-1].weight)  # so that it begins with the formula
    nn.init.zeros_(layers[-1].bias)
    net = nn.Sequential(*layers)
    count = len(demand.clicks)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-count // BATCH))
    generator = np.random.default_rng(seed)
    with progress("  trend", EPOCHS * count) as advance:
        for _ in range(EPOCHS):
            for part in torch.split(torch.from_numpy(generator.permutation(count)), BATCH):
                log_rate = demand.expected[part] + net(demand.pace[part]).squeeze(-1)
                optimizer.zero_grad()
                nn.functional.poisson_nll_loss(log_rate, demand.clicks[part]).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)  # a few items have most of the clicks
                optimizer.step()
                schedule.step()
                advance(len(part))
    return net
