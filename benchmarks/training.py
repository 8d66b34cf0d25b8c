"""What a training step costs, and what its two own parts gain over the obvious way. Ratios within one run.

python -m benchmarks.training [--items 43097] [--batch 512] [--length 5] [--hidden 100] [--repeats 5]
"""

import json
import os
import time
from collections.abc import Callable

import click
import numpy as np
import torch
from torch.nn import functional
from torch_geometric.data import Batch

from srgnn.graph import flat_session_batch, session_batch
from srgnn.model import SRGNN, SRGNNConfig
from training.loss import catalogue_cross_entropy


@click.command(help=__doc__)
@click.option("--items", default=43_097, show_default=True, help="Catalogue size V.")
@click.option("--batch", default=512, show_default=True, help="Examples a step B.")
@click.option("--length", default=5, show_default=True, help="Clicks an example.")
@click.option("--hidden", default=100, show_default=True, help="Hidden size d.")
@click.option("--repeats", default=5, show_default=True, help="Timed repetitions; the fastest counts.")
def main(items: int, batch: int, length: int, hidden: int, repeats: int) -> None:
    torch.manual_seed(0)
    clicks = np.random.default_rng(0).integers(0, items, (batch, length))
    model = SRGNN(SRGNNConfig(hidden_size=hidden, scoring="cosine", reversed_positions=True), items, length)
    targets = torch.from_numpy(clicks[:, 0].copy())
    lengths = np.full(batch, length)

    def vectorised_graph() -> None:
        flat_session_batch(clicks.ravel(), lengths)

    def collated_graph() -> None:
        Batch.from_data_list([session_batch([one]) for one in clicks])

    def step(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        model.zero_grad(set_to_none=True)
        matrix = model.item_matrix()
        graph = flat_session_batch(clicks.ravel(), lengths)
        vectors = model.session_vectors(graph, matrix[graph.x])
        loss(vectors, matrix).backward()

    def plain(vectors: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(vectors @ matrix.T, targets)

    def autocast(vectors: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return functional.cross_entropy(vectors @ matrix.T, targets)

    milliseconds = {
        "graph": fastest(vectorised_graph, repeats),
        "graph_pyg_batch": fastest(collated_graph, repeats),
        "step_float32": fastest(lambda: step(lambda v, m: catalogue_cross_entropy(v, m, targets)), repeats),
        "step_bfloat16": fastest(
            lambda: step(lambda v, m: catalogue_cross_entropy(v, m, targets, torch.bfloat16)), repeats
        ),
        "step_plain": fastest(lambda: step(plain), repeats),
        "step_autocast": fastest(lambda: step(autocast), repeats),
    }
    for name, value in milliseconds.items():
        print(f"{name:18} {value:10.2f} ms")
    print(json.dumps({
        "benchmark": "training",
        "items": items, "batch": batch, "length": length, "hidden": hidden,
        "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 2),
        "milliseconds": {name: round(value, 3) for name, value in milliseconds.items()},
        "graph_speedup": round(milliseconds["graph_pyg_batch"] / milliseconds["graph"], 2),
        "loss_speedup_float32": round(milliseconds["step_plain"] / milliseconds["step_float32"], 2),
        "loss_speedup_bfloat16": round(milliseconds["step_autocast"] / milliseconds["step_bfloat16"], 2),
    }))  # fmt: skip


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
