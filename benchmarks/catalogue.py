"""What the top k of a catalogue cost as it grows, against the time to read it once. Ratios within one run.

\b
python -m benchmarks.catalogue
python -m benchmarks.catalogue --size 10000 --size 10000000 --batch 1 --batch 256 --plot catalogue.png
python -m benchmarks.catalogue --artifact artifacts --corpus corpus

Random unit vectors stand in for items and sessions, unless --artifact names trained ones; its sessions come from the
test split of --corpus, or from --histories (text, one session a line; benchmarks.grow writes one). Then it is also
counted for how many sessions int8 and float32 answer the same (all: both are exact), how many items were scored exactly
for that, and what an index in the artifact finds of the exact answer. The floor sums the matrix as 64-bit integers:
V x d bytes for int8, four times as many for float32. The last line on stdout is JSON.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.load import report
from benchmarks.training import fastest
from srgnn import artifact as artifacts
from srgnn import catalogue as module
from srgnn.ann import IVF
from srgnn.batch import read_text
from srgnn.blend import model_of
from srgnn.catalogue import Catalogue
from srgnn.directory import INDEX
from srgnn.errors import InputError, SRGNNError
from srgnn.loops import FloatArray, IntArray, Items
from srgnn.loops.evidence import Pairs
from srgnn.loops.search import best_of_block, best_rows
from srgnn.recommender import Recommender
from srgnn.scan import Quantised, quantise
from srgnn.sequence import SessionRules
from training.corpus import Corpus
from training.examples import Examples

SIZES = (10_000, 100_000, 1_000_000)
BATCHES = (1, 16, 64, 256)
FIGURES = ("ms", "ms_a_session", "floor_ms", "of_floor")
COLOURS = {"int8": "#1d5fa8", "int8-compiled": "#6a4fb3", "float32": "#e07a1f", "ivf": "#2a9d8f"}
_PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Subject:
    """One catalogue, ready to be searched in several ways."""

    name: str
    searches: dict[str, Catalogue]
    vectors: Tensor
    """Sessions, float64 [n, d]."""
    quantised: Quantised


@click.command(help=__doc__)
@click.option(
    "--size", "sizes", multiple=True, type=click.IntRange(1), help="Items V; repeatable. [default: 10 k to 1 M]"
)
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), help="Sessions at once. [default: 1 to 256]")
@click.option("--hidden", default=100, show_default=True, type=click.IntRange(2), help="Width d of random items.")
@click.option("--k", default=20, show_default=True, type=click.IntRange(1), help="Items asked for.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="The fastest counts.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Of torch, as in the service.")
@click.option("--artifact", "names", multiple=True, type=_PATH, help="Measure this one instead; repeatable.")
@click.option("--corpus", type=_PATH, help="Prepared corpus whose test sessions are asked for.")
@click.option("--histories", type=_PATH, help="The same from a text file, one session a line.")
@click.option("--sessions", default=1000, show_default=True, type=click.IntRange(1), help="Compared at most.")
@click.option("--plot", type=_PATH, help="Write cost against size as a picture (.png, .svg, .pdf).")
def main(**options: Any) -> None:
    _check(options)
    found = {"benchmark": "catalogue", "k": options["k"], "threads": options["threads"], **report.environment()}
    torch.set_num_threads(options["threads"])
    sizes, names = options["sizes"] or (() if options["names"] else SIZES), options["names"]
    batches = sorted(options["batches"] or BATCHES)
    rows, answers = [], []
    subjects = itertools.chain(
        (random_subject(size, options["hidden"], max(batches)) for size in sorted(sizes)),
        (trained_subject(name, sequences_of(options), options["sessions"]) for name in names),
    )
    for subject in subjects:
        rows += costs(subject, batches, options["k"], options["repeats"])
        answers.append(compare(subject, options["k"], options["sessions"]))
    click.echo(table(rows))
    for answer in answers:
        click.echo(sentence(answer))
    if options["plot"]:
        plot(rows, options["plot"], f"top {options['k']}, {options['threads']} thread(s), {found['cpu']}")
    click.echo(json.dumps({**found, "results": rows, "answers": answers}))


def _check(options: dict[str, Any]) -> None:
    if bool(options["names"]) != bool(options["corpus"] or options["histories"]):
        raise InputError("give --artifact together with --corpus or --histories")
    if options["corpus"] and options["histories"]:
        raise InputError("give either --corpus or --histories")


def random_subject(size: int, hidden: int, sessions: int) -> Subject:
    """Unit vectors without any structure; sessions as long as those of a trained model."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.empty(size, hidden)
    for rows in torch.split(matrix, 1 << 16):  # in parts: 10 M items are 4 GB
        rows[:] = torch.nn.functional.normalize(torch.randn(rows.shape, generator=generator))
    quantised = quantise(matrix)
    vectors = 16 * torch.nn.functional.normalize(torch.randn(sessions, hidden, generator=generator).double())
    return Subject("random", _searches(matrix, torch.ones(size, dtype=torch.bool), quantised), vectors, quantised)


def trained_subject(path: Path, histories: Iterator[list[str]], sessions: int) -> Subject:
    """The items of an artifact and real sessions."""
    loaded = artifacts.load(path, exact=True, beside="nothing")
    recommender = loaded.recommender
    catalogue = model_of(recommender.scorer).catalogue
    quantised = artifacts._read_quantised(loaded.path, catalogue.matrix)
    searches = _searches(catalogue.matrix, catalogue.servable, quantised)
    if INDEX in loaded.manifest["files"]:
        index = IVF.read(loaded.path / INDEX, catalogue.servable.numpy(), catalogue.width)
        searches["ivf"] = Catalogue(catalogue.matrix, catalogue.servable, index=index)
    return Subject(loaded.name, searches, _vectors(recommender, histories, sessions), quantised)


def _searches(matrix: Tensor, servable: Tensor, quantised: Quantised) -> dict[str, Catalogue]:
    catalogues = (Catalogue(matrix, servable, quantised), Catalogue(matrix, servable))
    return {catalogue.search: catalogue for catalogue in catalogues}  # one only where vectors are very narrow


def sequences_of(options: dict[str, Any]) -> Iterator[list[str]]:
    """Histories in random order, as raw ids."""
    if options["histories"]:
        lines = [each.items for each in read_text(options["histories"])]
        yield from (lines[i] for i in np.random.default_rng(0).permutation(len(lines)))
        return
    corpus = Corpus.open(options["corpus"])
    examples, ids = Examples(corpus.test, SessionRules()), corpus.vocabulary.ids
    for i in np.random.default_rng(0).permutation(len(examples)):
        yield [ids[row] for row in examples.sequences(np.array([i]))[0].tolist()]


def _vectors(recommender: Recommender, histories: Iterator[list[str]], count: int) -> Tensor:
    sequences = (recommender.sequence(history) for history in histories)
    known = list(itertools.islice((sequence for sequence in sequences if len(sequence)), count))
    if not known:
        raise InputError("no session holds an item of the artifact: are corpus and artifact of the same data?")
    return model_of(recommender.scorer).session_vectors(known)


def costs(subject: Subject, batches: list[int], k: int, repeats: int) -> list[dict[str, Any]]:
    """A row for every search and batch."""
    rows = []
    for search, catalogue in subject.searches.items():
        floor = fastest(_data(subject, search).sum, repeats)
        for batch in batches:
            vectors = subject.vectors[torch.arange(batch) % len(subject.vectors)]
            took = fastest(lambda: catalogue.top_k(vectors, min(k, catalogue.num_items)), repeats)  # noqa: B023
            row = {
                "items": catalogue.num_items, "of": subject.name, "search": search, "batch": batch,
                "ms": round(took, 3), "ms_a_session": round(took / batch, 4),
                "floor_ms": round(floor, 3), "of_floor": round(took / floor, 2),
            }  # fmt: skip
            click.echo(line(row), err=True)
            rows.append(row)
    return rows


def _data(subject: Subject, search: str) -> Tensor:
    """What a search has to read, as int64; for an index, what the scan it saves would."""
    matrix = subject.searches[search].matrix if search == "float32" else subject.quantised.items
    data = matrix.reshape(-1)
    size = 8 // data.element_size()
    return data[: len(data) // size * size].view(torch.int64)


def compare(subject: Subject, k: int, sessions: int) -> dict[str, Any]:
    """How often the searches agree, and how many items each scores exactly for it, a session."""
    vectors = subject.vectors[:sessions]
    k = min(k, next(iter(subject.searches.values())).num_items)
    found: dict[str, Any] = {"of": subject.name, "sessions": len(vectors)}
    tops = {}
    for name, catalogue in subject.searches.items():
        with counted() as scored:
            tops[name] = catalogue.top_k(vectors, k).rows
        found[f"scored_exactly_{name}"] = round(scored[0] / len(vectors), 1)
    exact = tops["float32"]
    for name in tops.keys() & {"int8", "int8-compiled"}:
        found["int8_identical"] = float((tops[name] == exact).all(axis=1).mean())
    if "ivf" in tops:
        hits = sum(len(np.intersect1d(*pair)) for pair in zip(tops["ivf"], exact, strict=True))
        found["ivf_recall"] = hits / exact.size
    return found


@contextmanager
def counted() -> Iterator[list[int]]:
    """The number of items scored in float64 while the block runs."""
    count = [0]

    def counting_block(*block: Any) -> tuple[IntArray, FloatArray, int]:
        rows, scores, scored = best_of_block(*block)
        count[0] += scored
        return rows, scores, scored

    def counting_pairs(items: Items, vectors: FloatArray, pairs: Pairs, k: int) -> tuple[IntArray, FloatArray]:
        count[0] += len(pairs.rows)
        return best_rows(items, vectors, pairs, k)

    with patch.object(module, "best_of_block", counting_block), patch.object(module, "best_rows", counting_pairs):
        yield count


def line(row: dict[str, Any]) -> str:
    cells = (f"{row['items']:,}", row["search"], row["batch"], *(f"{row[name]:,.3g}" for name in FIGURES))
    return "".join(f"{cell:>14}" for cell in cells)


def table(rows: list[dict[str, Any]]) -> str:
    """One line a measurement."""
    head = "".join(f"{cell:>14}" for cell in ("items", "search", "batch", *FIGURES))
    return "\n".join([head, *map(line, rows)])


def sentence(answer: dict[str, Any]) -> str:
    """What :func:`compare` found."""
    parts = [f"{answer['of']}, {answer['sessions']:,} sessions:"]
    if "int8_identical" in answer:
        parts.append(f"int8 answers as float32 for {answer['int8_identical']:.2%};")
    parts += [f"{name[15:]} scores {answer[name]:,.1f} items exactly;" for name in answer if name.startswith("scored")]
    if "ivf_recall" in answer:
        parts.append(f"ivf finds {answer['ivf_recall']:.2%} of the exact answer")
    return " ".join(parts).rstrip(";")


def plot(rows: list[dict[str, Any]], file: Path, title: str) -> None:
    """Time against size: one session and the largest batch, and the floor."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), dpi=150, facecolor=report.PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    batches = {min(row["batch"] for row in rows): "-", max(row["batch"] for row in rows): "--"}
    for search, colour in COLOURS.items():
        for batch, style in batches.items():
            points = sorted(
                (r["items"], r["ms_a_session"]) for r in rows if (r["search"], r["batch"]) == (search, batch)
            )
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, marker="o", label=f"{search}, batch {batch}")
        floor = sorted({(row["items"], row["floor_ms"]) for row in rows if row["search"] == search != "ivf"})
        if floor:
            axes.plot(*zip(*floor, strict=True), ":", color=colour, label=f"reading {search} once")
    axes.set(xscale="log", yscale="log", xlabel="items V", ylabel="ms a session", title=title)
    axes.grid(color="#d9dde2", linewidth=0.8)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file)


if __name__ == "__main__":
    try:
        main()
    except SRGNNError as failure:
        sys.exit(f"error: {failure}")
