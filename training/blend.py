"""How much the evidence of neighbours and habits counts beside the model: weights fitted on validation sessions."""

from typing import NamedTuple

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srgnn.blend import BlendWeights, Evidence, evidence
from srgnn.habits import NO_HABITS
from srgnn.loops.habits import Habits
from srgnn.neighbours import Neighbours
from srgnn.progress import progress
from srgnn.scorer import SRGNNScorer
from srgnn.sequence import IntArray
from srgnn.trend import UNIT

from .examples import Examples

EXAMPLES = 20_000
"""Validation clicks that are looked at, at most: there are nine numbers to learn."""
BEST = 100
"""Items of the model's list that a next click is compared with, beside those that there is evidence for."""
MODEL_AT_LEAST = 0.01
"""Of the model's own weight, which all others are divided by: below it the model knows nothing that they do not."""
BATCH = 256

FloatArray = npt.NDArray[np.float32]


class _Choices(NamedTuple):
    """N next clicks, and what each was chosen among: M items in all."""

    features: FloatArray
    """[M, 9]: the model's score, then the evidence, at last the trend."""
    example: IntArray
    """[M], from 0 to N - 1, rising."""
    chosen: IntArray
    """[N]: where the next click is in the M."""


def fit_blend(
    model: SRGNNScorer, neighbours: Neighbours, examples: Examples, seed: int, habits: Habits = NO_HABITS
) -> BlendWeights:
    """The most likely weights of a choice among the model's best items and those with evidence.

    A conditional logit (McFadden 1974): convex, so it has one answer. Its prior, a standard normal for each weight,
    matters for a few hundred examples and not for thousands. Next clicks that are not among the items tell nothing;
    where none does, neighbours count nothing.
    """
    drawn = np.random.default_rng(seed).permutation(len(examples))[:EXAMPLES]
    choices = _choices(model, neighbours, habits, examples, np.sort(drawn))
    if choices is None:
        return BlendWeights()
    weights = _most_likely(choices)
    return BlendWeights(*(weights[1:] / max(weights[0], MODEL_AT_LEAST)).tolist())


def _choices(
    model: SRGNNScorer, neighbours: Neighbours, habits: Habits, examples: Examples, indices: IntArray
) -> _Choices | None:
    items, features, sizes, chosen, place = model.catalogue.matrix.numpy(), [], [], [], 0
    with progress("  blend", len(indices)) as advance:
        for start in range(0, len(indices), BATCH):
            part = indices[start : start + BATCH]
            sequences, targets = examples.sequences(part), examples.targets[part].tolist()
            vectors = model.session_vectors(sequences)
            best = model.catalogue.top_k(vectors, min(BEST, model.num_items)).rows
            for vector, sequence, rows, target in zip(vectors.numpy(), sequences, best, targets, strict=True):
                found = evidence(neighbours, habits, sequence, items, vector)
                among, known = _among(rows[rows >= 0], found, model)
                where = int(np.searchsorted(among, target))
                if where == len(among) or among[where] != target:
                    continue
                trend = UNIT * items[among, model.config.hidden_size :].sum(1)  # of one column or none
                features.append(np.column_stack([items[among] @ vector, known, trend]).astype(np.float32))
                sizes.append(len(among))
                chosen.append(place + where)
                place += len(among)
            advance(len(part))
    if not chosen:
        return None
    return _Choices(np.concatenate(features), np.repeat(np.arange(len(sizes)), sizes), np.array(chosen))


def _among(best: IntArray, found: Evidence, model: SRGNNScorer) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Items that may be answered, rising [n], and the evidence for them [n, 7]."""
    rows = np.union1d(best, found.rows)
    rows = rows[model.catalogue.servable.numpy()[rows]]
    features = np.zeros((len(rows), found.features.shape[1]))
    with_evidence = np.isin(found.rows, rows)
    features[np.searchsorted(rows, found.rows[with_evidence])] = found.features[with_evidence]
    return rows, features


def _most_likely(choices: _Choices) -> npt.NDArray[np.float64]:
    """[9]."""
    features, example = torch.from_numpy(choices.features), torch.from_numpy(choices.example)
    chosen, count = torch.from_numpy(choices.chosen), len(choices.chosen)
    weights = torch.zeros(features.shape[1])
    weights[0] = 1.0
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = features @ weights  # [M]
        largest = scores.new_full((count,), -torch.inf).scatter_reduce(0, example, scores.detach(), "amax")
        total = scores.new_zeros(count).index_add(0, example, (scores - largest[example]).exp())
        value = (total.log() + largest - scores[chosen]).mean() + weights.square().sum() / (2 * count)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach().double().numpy()


def announce(what: str, weights: BlendWeights, alone: dict[str, float], blended: dict[str, float]) -> None:
    """What it brought on validation, on stderr."""
    gains = ", ".join(f"{name} {alone[name]:.4f} -> {value:.4f}" for name, value in blended.items())
    parts = ", ".join(f"{name} {value:+.2f}" for name, value in vars(weights).items())
    click.echo(f"{what}: {gains} ({parts})", err=True)
