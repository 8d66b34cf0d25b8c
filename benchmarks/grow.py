"""An artifact of as many items as wanted, out of a real trained one: to measure what a large catalogue costs.

\b
python -m benchmarks.grow artifacts --items 1000000 --output grown
python -m benchmarks.grow artifacts --items 10000000 --output grown --corpus corpus --histories histories.txt

The real items keep their ids and rows, so the same corpus drives the service. Every other item is a copy of a real one
that was drawn by its training clicks, id "SOURCE~ROW", turned away from it. How far is chosen so that an item's nearest
neighbour is as near as a real item's is: with r the cosine of the source to its nearest real neighbour, m its number of
copies and D the catalogue's effective dimension, a copy has cosine c to its source and about
c^2 + (1 - c^2) sqrt(2 ln(m) / D) to the nearest other copy; c is the largest with both at most r. The direction has the
covariance of the real items. Both distributions of nearest neighbours are printed. Copies have one click each and no
transitions.

--histories writes the corpus' test sessions with every click on a random copy of its item (itself included), one a
line, as `srgnn index --histories` reads them. Memory stays at a few hundred bytes an item; the matrices are written a
block at a time. The last line on stdout is JSON.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

from srgnn.artifact import Artifact, load, write_probes
from srgnn.blend import model_of
from srgnn.catalogue import Catalogue
from srgnn.directory import publish
from srgnn.errors import InputError, SRGNNError
from srgnn.fallback import Fallback
from srgnn.loops.layout import GROUP
from srgnn.progress import progress
from srgnn.recommender import Recommender
from srgnn.scan import Quantised, num_groups, quantise
from srgnn.scorer import SRGNNScorer
from srgnn.sequence import IntArray
from srgnn.vocabulary import Vocabulary
from training.corpus import Corpus

BLOCK = 1 << 16
"""Items made at once: whole groups of the int8 matrix."""
SAMPLE = 500
"""Items whose nearest neighbours are looked up."""
_PATH = click.Path(path_type=Path)
_TYPES = {"F32": np.float32, "I8": np.int8, "I64": np.int64}
"""safetensors' names."""


@click.command(help=__doc__)
@click.argument("artifact", type=click.Path(exists=True, path_type=Path))
@click.option("--items", required=True, type=click.IntRange(1), help="Items of the new catalogue.")
@click.option("--output", required=True, type=_PATH, help="Folder for the new artifact.")
@click.option("--corpus", type=_PATH, help="Prepared corpus of the artifact, for --histories.")
@click.option("--histories", type=_PATH, help="Where its test sessions go, on copies.")
@click.option("--seed", default=1, show_default=True, help="Of draws and noise.")
def main(artifact: Path, items: int, output: Path, corpus: Path | None, histories: Path | None, seed: int) -> None:
    if (corpus is None) != (histories is None):
        raise InputError("give --corpus together with --histories")
    loaded = load(artifact, beside="nothing")  # past sessions know nothing of copies
    old = loaded.recommender
    if items < len(old.vocabulary):
        raise InputError(f"--items is {items}: {loaded.name} has {len(old.vocabulary)} already")
    random = np.random.default_rng(seed)
    sources = draw_sources(old.fallback.clicks, items, random)
    real = embedding(model_of(old.scorer))
    grown = Grown(loaded, sources, Turn.of(real, sources), seed)
    path = publish(output, grown.manifest(), grown.write)
    if corpus and histories:
        write_histories(histories, Corpus.open(corpus), grown.ids, sources, random)
    near = {name: nearest(matrix, seed) for name, matrix in (("real", real), ("grown", grown.matrix))}
    for name, quantiles in near.items():
        click.echo(f"cosine to the nearest neighbour, {name:5}: {quantiles}")
    click.echo(json.dumps({"artifact": str(path), "items": items, "nearest_cosine": near}))


def embedding(model: SRGNNScorer) -> Tensor:
    """[V, d]: what the model has learnt of its items, without their trend."""
    return model.catalogue.matrix[:, : model.config.hidden_size].contiguous()


def draw_sources(clicks: IntArray, items: int, random: np.random.Generator) -> npt.NDArray[np.int32]:
    """The real item of every row [V]: the real ones first, then copies by training clicks."""
    copies = random.choice(len(clicks), items - len(clicks), p=clicks / clicks.sum())
    return np.concatenate([np.arange(len(clicks)), copies]).astype(np.int32)


@dataclass(frozen=True)
class Turn:
    """How copies are turned away from their source."""

    cosine: Tensor
    """[real items] of the angle."""
    root: Tensor
    """[d, d]: a standard normal vector times this has the covariance of the real items."""

    @classmethod
    def of(cls, matrix: Tensor, sources: npt.NDArray[np.int32]) -> "Turn":
        """See the module's text."""
        unit = torch.nn.functional.normalize(matrix)
        covariance = torch.cov(unit.T)
        values, vectors = torch.linalg.eigh(covariance)
        dimension = values.sum() ** 2 / (values**2).sum()
        copies = torch.from_numpy(np.bincount(sources, minlength=len(unit)))
        gain = (2 * copies.clamp_min(1).log() / dimension).sqrt().clamp_max(0.9)
        near = _nearest_cosine(unit, torch.arange(len(unit)))
        cosine = ((near - gain) / (1 - gain)).clamp_min(0.05).sqrt()
        return cls(torch.minimum(cosine, near.clamp_min(0.05)), (vectors * values.clamp_min(0).sqrt()).T)

    def __call__(self, items: Tensor, sources: Tensor, generator: torch.Generator) -> Tensor:
        """Items [n, d] turned by the angle of their ``sources`` [n], as long as before."""
        length = items.norm(dim=1, keepdim=True).clamp_min(1e-12)
        unit = items / length
        noise = torch.randn(items.shape, generator=generator) @ self.root
        noise -= (noise * unit).sum(1, keepdim=True) * unit
        noise /= noise.norm(dim=1, keepdim=True).clamp_min(1e-12)
        cosine = self.cosine[sources].unsqueeze(1)
        turned = cosine * unit + (1 - cosine**2).sqrt() * noise
        grown: Tensor = turned * (length / turned.norm(dim=1, keepdim=True))
        return grown


class Grown:
    """The new artifact while it is written; ``matrix`` and ``ids`` are there once it is."""

    def __init__(self, old: Artifact, sources: npt.NDArray[np.int32], turn: Turn, seed: int) -> None:
        self.old, self.sources, self.turn, self.seed = old, sources, turn, seed
        self.matrix = torch.empty(0)
        self.ids: list[str] = []

    def manifest(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.old.manifest.items() if name not in ("blend", "trend")}
        return kept | {
            "dataset": f"{self.old.manifest['dataset'][:48]}-{len(self.sources)}",
            "items": len(self.sources),
            "provenance": {"grown_from": self.old.name, "seed": self.seed},
            "metrics": {},
        }

    def write(self, folder: Path) -> None:
        """All files but the manifest."""
        old, size = self.old.recommender, len(self.sources)
        model = model_of(old.scorer)
        quantised = self._write_matrices(folder, embedding(model))
        fallback = grown_fallback(old.fallback, size)
        counts = {name: getattr(fallback, name) for name in ("clicks", "offsets", "next_rows", "next_clicks")}
        stored = create(folder / "fallback.safetensors", {name: ("I64", array.shape) for name, array in counts.items()})
        for name, array in counts.items():
            stored[name][:] = array
        with (folder / "vocabulary.txt").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{item}\n" for item in grown_ids(old.vocabulary.ids, self.sources))
        catalogue = Catalogue(self.matrix, torch.from_numpy(fallback.clicks > 0), quantised)
        scorer = SRGNNScorer(model.config, model.encoder, catalogue)
        vocabulary = Vocabulary.read(folder / "vocabulary.txt")
        self.ids = vocabulary.ids
        asked = json.loads((self.old.path / "probes.json").read_text(encoding="utf-8"))
        histories = [probe["history"] for probe in asked if probe["history"]]
        write_probes(folder, Recommender(vocabulary, old.rules, scorer, fallback), histories)

    def _write_matrices(self, folder: Path, real: Tensor) -> Quantised:
        """The model with its items, and their int8 form, a block at a time."""
        size, width = len(self.sources), real.shape[1]
        state = load_file(self.old.path / "model.safetensors") | {"embedding": torch.empty(0)}
        shapes = {name: ("F32", tuple(tensor.shape)) for name, tensor in state.items()}
        model = create(folder / "model.safetensors", shapes | {"embedding": ("F32", (size, width))})
        groups = num_groups(size)
        shapes = {"items": ("I8", (groups * GROUP, width)), "scales": ("F32", (groups,))}
        int8 = create(folder / "catalogue.safetensors", shapes)
        for name, tensor in state.items():
            if name != "embedding":
                model[name][:] = tensor.numpy()
        generator = torch.Generator().manual_seed(self.seed)
        with progress("grow, items", size) as advance:
            for start in range(0, size, BLOCK):
                block = slice(start, start + BLOCK)
                rows = torch.from_numpy(self.sources[block]).long()
                items = self.turn(real[rows], rows, generator)
                kept = max(0, min(len(rows), len(real) - start))  # the real items stay as they are
                items[:kept] = real[start : start + kept]
                model["embedding"][block] = items.numpy()
                rounded = quantise(items)
                int8["items"][start : start + len(rounded.items)] = rounded.items.numpy()
                int8["scales"][start // GROUP :][: len(rounded.scales)] = rounded.scales.numpy()
                advance(len(rows))
        self.matrix = torch.from_numpy(model["embedding"])
        return Quantised(torch.from_numpy(int8["items"]), torch.from_numpy(int8["scales"]))


def create(file: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.memmap]:
    """A safetensors file of these types and shapes, mapped for writing. Its own writer needs all tensors in memory."""
    sizes = {name: int(np.prod(shape)) * np.dtype(_TYPES[kind]).itemsize for name, (kind, shape) in tensors.items()}
    ends = dict(zip(tensors, np.cumsum(list(sizes.values())).tolist(), strict=True))
    header = json.dumps({
        name: {"dtype": kind, "shape": shape, "data_offsets": [ends[name] - sizes[name], ends[name]]}
        for name, (kind, shape) in tensors.items()
    }).encode()  # fmt: skip
    header += b" " * (-len(header) % 8)
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + sum(sizes.values()))
    return {
        name: np.memmap(file, _TYPES[kind], "r+", 8 + len(header) + ends[name] - sizes[name], shape)
        for name, (kind, shape) in tensors.items()
    }


def grown_fallback(old: Fallback, size: int) -> Fallback:
    """One click for every copy, so that it may be answered; no transitions."""
    more = size - len(old.clicks)
    clicks = np.concatenate([old.clicks, np.ones(more, np.int64)])
    offsets = np.concatenate([old.offsets, np.full(more, old.offsets[-1])])
    return Fallback(clicks, offsets, old.next_rows, old.next_clicks)


def grown_ids(ids: list[str], sources: npt.NDArray[np.int32]) -> Iterator[str]:
    """Row by row; Vocabulary refuses them should one of a copy be taken."""
    yield from ids
    for row in range(len(ids), len(sources)):
        yield f"{ids[sources[row]]}~{row}"


def write_histories(
    file: Path, corpus: Corpus, ids: list[str], sources: npt.NDArray[np.int32], random: np.random.Generator
) -> None:
    """All prefixes a service would see, one of each test session, on copies; ``ids`` and ``sources`` are by row."""
    by_source = np.argsort(sources, kind="stable")
    starts = np.searchsorted(sources[by_source], np.arange(len(corpus.vocabulary) + 1))
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        for session in range(corpus.test.num_sessions):
            rows = corpus.test.session(session)
            rows = rows[: random.integers(1, len(rows))]  # what came before a random click of the session
            copies = by_source[random.integers(starts[rows], starts[rows + 1])]
            stream.write(" ".join(ids[row] for row in copies.tolist()) + "\n")


def nearest(matrix: Tensor, seed: int) -> dict[str, float]:
    """Quantiles of the cosine of an item to its nearest neighbour, over a sample."""
    rows = torch.randperm(len(matrix), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    quantiles = np.quantile(_nearest_cosine(matrix, rows).numpy(), [0.05, 0.25, 0.5, 0.75, 0.95]).round(3)
    return dict(zip(("p5", "p25", "p50", "p75", "p95"), quantiles.tolist(), strict=True))


def _nearest_cosine(matrix: Tensor, rows: Tensor) -> Tensor:
    """Of each of ``rows`` [n] to any other row: [n]."""
    best = torch.full((len(rows),), -1.0)
    for part in torch.split(torch.arange(len(rows)), SAMPLE):
        wanted = torch.nn.functional.normalize(matrix[rows[part]])
        for start in range(0, len(matrix), BLOCK):
            cosine = wanted @ torch.nn.functional.normalize(matrix[start : start + BLOCK]).T
            own = rows[part] - start
            inside = (own >= 0) & (own < cosine.shape[1])
            cosine[inside, own[inside]] = -1.0
            best[part] = torch.maximum(best[part], cosine.amax(1))
    return best


if __name__ == "__main__":
    try:
        main()
    except SRGNNError as failure:
        sys.exit(f"error: {failure}")
