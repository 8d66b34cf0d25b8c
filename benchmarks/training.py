"""What training costs: a whole step, what its own parts gain over the obvious way, and how an example's cost grows.

\b
python -m benchmarks.training                      one size, ratios within one run
python -m benchmarks.training --grow               also: cost per example as the catalogue and the sessions grow
"""

import gc
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace

import click
import numpy as np
import torch
from torch.nn import functional
from torch_geometric.data import Batch

from srgnn.config import SRGNNConfig
from srgnn.model import SRGNN
from srgnn.sequence import IntArray
from srgnn.session_batch import flat_session_batch, session_batch
from training import loop
from training.config import Recipe, TrainingConfig
from training.examples import ExampleBatch
from training.loss import catalogue_cross_entropy
from training.negatives import Negatives
from training.run import Run

CATALOGUES = (10_000, 43_097, 100_000, 300_000, 1_000_000)
LENGTHS = (2, 5, 10, 20, 50)
LARGEST_FULL = 100_000
"""Beyond it a step on the whole catalogue takes seconds, and nobody would train so."""


@click.command(help=__doc__)
@click.option("--items", default=43_097, show_default=True, help="Catalogue size V.")
@click.option("--batch", default=512, show_default=True, help="Examples a step B.")
@click.option("--length", default=5, show_default=True, help="Clicks an example.")
@click.option("--hidden", default=100, show_default=True, help="Hidden size d.")
@click.option("--negatives", default=4096, show_default=True, help="Items a step is compared with when sampling.")
@click.option("--repeats", default=5, show_default=True, help="Timed repetitions; the fastest counts.")
@click.option("--grow", is_flag=True, help="Also measure how an example's cost grows.")
def main(items: int, batch: int, length: int, hidden: int, negatives: int, repeats: int, grow: bool) -> None:
    one = _Size(items, batch, length, hidden)
    milliseconds = {
        **graph_milliseconds(one, repeats),
        **loss_milliseconds(one, repeats),
        "step_full": step_milliseconds(one, 0, repeats),
        "step_sampled": step_milliseconds(one, negatives, repeats),
    }
    for name, value in milliseconds.items():
        print(f"{name:18} {value:10.2f} ms")
    growth = {"items": by_items(one, negatives, repeats), "length": by_length(one, negatives, repeats)} if grow else {}
    for what, rows in growth.items():
        print(f"\nus per example by {what}\n" + "\n".join(f"{row[what]:>10,}  {_cells(row)}" for row in rows))
    print(json.dumps({
        "benchmark": "training",
        "items": items, "batch": batch, "length": length, "hidden": hidden, "negatives": negatives,
        "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 2),
        "milliseconds": {name: round(value, 3) for name, value in milliseconds.items()},
        "graph_speedup": round(milliseconds["graph_pyg_batch"] / milliseconds["graph"], 2),
        "loss_speedup": round(milliseconds["loss_plain"] / milliseconds["loss"], 2),
        "sampling_speedup": round(milliseconds["step_full"] / milliseconds["step_sampled"], 2),
        "microseconds_per_example": growth,
    }))  # fmt: skip


class _Size:
    """Random clicks of one shape, and a model for them."""

    def __init__(self, items: int, batch: int, length: int, hidden: int) -> None:
        self.items, self.batch, self.length, self.hidden = items, batch, length, hidden
        rng = np.random.default_rng(0)
        self.clicks: IntArray = rng.integers(0, items, (batch, length))
        self.lengths = np.full(batch, length)
        self.targets: IntArray = rng.integers(0, items, batch)

    def of(self, *, items: int | None = None, length: int | None = None) -> "_Size":
        """The same with another catalogue or other sessions."""
        return _Size(items or self.items, self.batch, length or self.length, self.hidden)


def graph_milliseconds(size: _Size, repeats: int) -> dict[str, float]:
    """One vectorised pass against PyG's collation of single sessions."""
    return {
        "graph": fastest(lambda: flat_session_batch(size.clicks.ravel(), size.lengths), repeats),
        "graph_pyg_batch": fastest(
            lambda: Batch.from_data_list([session_batch([one]) for one in size.clicks]), repeats
        ),
    }


def loss_milliseconds(size: _Size, repeats: int) -> dict[str, float]:
    """The loss on the whole catalogue and its gradients, against torch's."""
    torch.manual_seed(0)
    items = functional.normalize(torch.randn(size.items, size.hidden)).requires_grad_()
    vectors = (16 * functional.normalize(torch.randn(size.batch, size.hidden))).requires_grad_()
    targets = torch.from_numpy(size.targets)

    def plain() -> None:
        functional.cross_entropy(vectors @ items.T, targets).backward()  # type: ignore[no-untyped-call]

    def ours() -> None:
        catalogue_cross_entropy(vectors, items, targets).backward()  # type: ignore[no-untyped-call]

    return {"loss": fastest(ours, repeats), "loss_plain": fastest(plain, repeats)}


def step_milliseconds(size: _Size, negatives: int, repeats: int) -> float:
    """A whole step of the training loop: draw, graphs, forward, backward, optimizers."""
    gc.collect()
    torch.manual_seed(0)
    training = replace(TrainingConfig(), negatives=negatives, batch_size=size.batch)
    config = SRGNNConfig(hidden_size=size.hidden, scoring="cosine", dropout=0.2, reversed_positions=True)
    recipe = Recipe("benchmark", model=config, training=training)
    model = SRGNN(config, size.items, size.length)
    run = Run(recipe, model, loop._optimizers(model, training), "")
    sampler = Negatives(np.ones(size.items, np.int64), negatives) if loop._samples(training, size.items) else None
    batch = ExampleBatch(size.clicks.ravel(), size.lengths, size.targets)
    return fastest(lambda: loop._update(run, batch, sampler, None, 1e-3), repeats)


def by_items(size: _Size, negatives: int, repeats: int) -> list[dict[str, float]]:
    """Microseconds an example, full and sampled, by catalogue size."""
    rows = []
    for items in CATALOGUES:
        grown = size.of(items=items)
        full = step_milliseconds(grown, 0, repeats) if items <= LARGEST_FULL else None
        rows.append(_row("items", items, full, step_milliseconds(grown, negatives, repeats), size.batch))
    return rows


def by_length(size: _Size, negatives: int, repeats: int) -> list[dict[str, float]]:
    """Microseconds an example, sampled, by clicks a session."""
    sizes = ((length, size.of(length=length)) for length in LENGTHS)
    return [
        _row("length", length, None, step_milliseconds(grown, negatives, repeats), size.batch)
        for length, grown in sizes
    ]


def _row(what: str, value: int, full: float | None, sampled: float, batch: int) -> dict[str, float]:
    row = {what: value, "sampled": round(1000 * sampled / batch, 1)}
    return row | ({"full": round(1000 * full / batch, 1)} if full is not None else {})


def _cells(row: dict[str, float]) -> str:
    return "  ".join(f"{name} {row[name]:9.1f}" for name in ("full", "sampled") if name in row)


def fastest(run: Callable[[], object], repeats: int) -> float:
    """Milliseconds of the fastest of ``repeats`` runs, after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


if __name__ == "__main__":
    main()
