"""A trend that is learnt: what validation sessions say of items that were clicked so often, so lately, since so long.

:mod:`srgnn.trend` computes it by one formula, from clicks of one kind of late. How much of an item's demand is left
when it was clicked a hundred times, but hardly this week, is a question to the log: a small network answers it, from
the item's clicks, how late they came at four scales of time, and when the first one did. Its answers are one number of
each item, as the formula's are, so that it costs nothing when serving.

A network knows many items by their clicks alone, and could learn by heart what was liked while it looked. So it learns
from the earlier validation sessions and is judged by the later ones. Where it is no better than the formula there, the
formula stays; else it learns from all of them.
"""

from typing import NamedTuple

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from srgnn.blend import BlendScorer
from srgnn.loops import FloatArray
from srgnn.progress import progress
from srgnn.sequence import IntArray
from srgnn.trend import PRIOR_CLICKS, trend

from .blend import MODEL_AT_LEAST
from .examples import Examples

DECAYS = (0.005, 0.02, 0.05, 0.2)
"""Of the trends that it is made of: shares of all sessions."""
NUMBERS = len(DECAYS) + 2
"""Of each item."""
NEW = 1e-3
"""Share of all sessions: items whose first click is less old are about equally new."""
HIDDEN = 32
BEST = 100
"""Items of the list that a next click is compared with."""
EARLIER_SHARE = 0.6
"""Of the validation examples; the rest judges."""
AT_LEAST = 2_000
"""Next clicks to learn from, which are in their lists, and to judge by: fewer say nothing."""
MOST = 100_000
"""Examples to learn from: more of them would only take their time and room."""
EPOCHS = 8
BATCH = 64
LEARNING_RATE = 3e-3
SESSIONS_AT_ONCE = 512


class LearntTrend(nn.Module):
    """Of items: their pace [n, NUMBERS] -> what each e-fold of odds is added to a model's score [n]."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUMBERS))
        self.register_buffer("spread", torch.ones(NUMBERS))
        self.layers = nn.Sequential(
            nn.Linear(NUMBERS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )
        self.unit = nn.Parameter(torch.ones(1))
        """What a unit of the model's score counts in the choices that it learns from."""

    def forward(self, pace: Tensor) -> Tensor:
        """Float32 [n, NUMBERS] -> [n]."""
        logits: Tensor = self.layers((pace - self.mean) / self.spread).squeeze(-1)
        return logits

    @torch.no_grad()
    def of_items(self, pace: FloatArray) -> FloatArray:
        """In units of the model's score: [V, NUMBERS] -> [V]."""
        unit = self.unit.clamp(min=MODEL_AT_LEAST)
        values: FloatArray = (self(torch.from_numpy(pace).float()) / unit).double().numpy()
        return values


class Lists(NamedTuple):
    """N next clicks that are in the list of their session's BEST items."""

    rows: Tensor
    """Int64 [N, BEST]."""
    scores: Tensor
    """Float32 [N, BEST], without a trend; -inf where the list is shorter."""
    chosen: Tensor
    """Int64 [N]: the place of the next click."""
    example: Tensor
    """Int64 [N], rising: which of the examples it is."""

    def until(self, end: int) -> "Lists":
        """Those of the examples before ``end``."""
        stop = int(torch.searchsorted(self.example, end))
        return Lists(*(part[:stop] for part in self))


def pace(items: IntArray, offsets: IntArray, num_items: int) -> FloatArray:
    """Of sessions laid end to end, the oldest first: the logarithm of each item's clicks, its trends, and the logarithm
    of the share of sessions since the first one that has it, 0 for an item that none has: [V, NUMBERS]."""
    num_sessions = len(offsets) - 1
    first = np.full(num_items, num_sessions)
    np.minimum.at(first, items, np.repeat(np.arange(num_sessions), np.diff(offsets)))
    age = (num_sessions - first) / num_sessions
    clicks = np.log(np.bincount(items, minlength=num_items) + PRIOR_CLICKS)
    trends = (trend(items, offsets, num_items, decay) for decay in DECAYS)
    return np.column_stack([clicks, *trends, np.log(age + NEW)])


def lists(scorer: BlendScorer, formula: FloatArray, examples: Examples) -> Lists:
    """What ``scorer``, which has the trend of the ``formula`` [V], holds likely for examples, MOST of them at most."""
    best, found = min(BEST, scorer.num_items), []
    indices = np.linspace(0, len(examples) - 1, min(MOST, len(examples))).astype(np.int64)
    with progress("  trend", len(indices)) as advance:
        for start in range(0, len(indices), SESSIONS_AT_ONCE):
            part = indices[start : start + SESSIONS_AT_ONCE]
            rows, scores = scorer.top_k(examples.sequences(part), best)
            is_next = rows == examples.targets[part][:, None]
            kept = is_next.any(1)
            rows, scores = rows[kept], scores[kept]
            scores = np.where(rows < 0, -np.inf, scores - scorer.weights.trend * formula[rows]).astype(np.float32)
            found.append((np.maximum(rows, 0), scores, is_next[kept].argmax(1), part[kept]))
            advance(len(part))
    return Lists(*(torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True)))


def learn(choices: Lists, pace: npt.NDArray[np.floating], seed: int) -> LearntTrend:
    """The network that makes the next clicks most likely in their lists, of items with this ``pace`` [V, NUMBERS]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = LearntTrend()
    inputs = torch.from_numpy(pace).float()
    net.mean, net.spread = inputs.mean(0), inputs.std(0) + 1e-6
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    count = len(choices.chosen)
    steps = EPOCHS * -(-count // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = np.random.default_rng(seed)
    with progress("  trend", EPOCHS * count) as advance:
        for _ in range(EPOCHS):
            for part in torch.split(torch.from_numpy(generator.permutation(count)), BATCH):
                logits = net.unit * choices.scores[part] + net(inputs[choices.rows[part]])
                optimizer.zero_grad()
                cross_entropy(logits, choices.chosen[part]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                advance(len(part))
    return net


def announce(judged: dict[str, dict[str, float]], kept: bool) -> None:
    """What it brought on later sessions, on stderr."""
    gains = ", ".join(
        f"{name} {value:.4f} -> {judged['learnt'][name]:.4f}" for name, value in judged["formula"].items()
    )
    outcome = "kept, and learnt from all" if kept else "the formula stays"
    click.echo(f"trend, learnt from earlier validation sessions, on the later ones: {gains}; {outcome}", err=True)
