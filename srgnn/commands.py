"""The commands ``srgnn recommend``, ``srgnn index`` and ``srgnn inspect``."""

import itertools
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from . import ann
from .artifact import PROBES, load, save_with_index
from .batch import read_text, recommend_file
from .blend import model_of
from .cli import emit
from .errors import InputError
from .recommender import Recommender
from .threads import limit_threads
from .vocabulary import check_item_id

SAMPLE = 1000
"""Histories that the lists to be visited are chosen on."""
_PATH = click.Path(path_type=Path)
LARGE_INPUT_BYTES = 1 << 20
"""Some 30,000 histories, two seconds of work: less than worker processes take to start."""


@click.command()
@click.argument("artifact", type=click.Path(exists=True, path_type=Path))
@click.option("--history", help="Clicked item ids, oldest first, separated by commas.")
@click.option(
    "--input",
    "source",
    type=_PATH,
    help="Text, one session a line with ids separated by spaces; or .parquet.",
)
@click.option("--output", type=_PATH, help="Where the answers go: .jsonl or .parquet.")
@click.option("-k", type=int, default=20, show_default=True, help="Items for each history.")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Processes for --input.  [default: one a core for a large file, else one]",
)
def recommend(
    artifact: Path, history: str | None, source: Path | None, output: Path | None, k: int, workers: int | None
) -> None:
    """The next k items of one history, or of every history in a file.

    ARTIFACT is an artifact or the folder that holds LATEST. A Parquet input has a list column `items`,
    oldest click first, and optionally `session`. Unknown items are skipped; without a known one the popular
    items are the answer.
    """
    if (history is None) == (source is None) or (source is None) != (output is None):
        raise InputError("give either --history a,b,c or --input FILE together with --output FILE")
    workers = workers or _workers_for(source)
    if workers > 1:
        limit_threads(1)  # the other cores are for copies of this process
    loaded = load(artifact)
    if history is not None:
        emit({"model": loaded.name, **recommend_history(loaded.recommender, history, k)})
    elif source is not None and output is not None:
        result = recommend_file(loaded.recommender, source, output, k, artifact=loaded.path, workers=workers)
        if result.clicks and result.clicks == result.unknown_clicks:
            click.echo(
                f"warning: none of the {result.clicks} clicks in {source} is on an item of {loaded.name}; "
                "are the ids separated by spaces, and of this catalogue?",
                err=True,
            )
        emit({"model": loaded.name, **result.to_json()})


def _workers_for(source: Path | None) -> int:
    large = source is not None and source.is_file() and source.stat().st_size > LARGE_INPUT_BYTES
    return (os.cpu_count() or 1) if large else 1


def recommend_history(recommender: Recommender, history: str, k: int) -> dict[str, Any]:
    """Print the answer to one comma-separated history and return it in the shape the service answers in."""
    clicked = [item.strip() for item in history.split(",") if item.strip()]
    for item in clicked:
        check_item_id(item)
    answer = recommender.recommend([clicked], k)[0]
    for place, (item, score) in enumerate(zip(answer.item_ids, answer.scores, strict=True), start=1):
        click.echo(f"{place:>4}  {score:>10.4f}  {item}")
    return {
        "history": clicked,
        "unknown_items": [item for item in clicked if item not in recommender.vocabulary],
        "items": [
            {"item_id": item, "score": score} for item, score in zip(answer.item_ids, answer.scores, strict=True)
        ],
        "source": answer.source,
    }


@click.command()
@click.argument("artifact", type=click.Path(exists=True, path_type=Path))
@click.option("--histories", required=True, type=_PATH, help="Real sessions, one a line with ids separated by spaces.")
@click.option("--output", type=_PATH, help="Folder for the new artifact. [default: that of ARTIFACT]")
@click.option("--lists", type=click.IntRange(1), help="Lists of the index. [default: square root of the items]")
@click.option(
    "--recall",
    default=0.99,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the exact best 20 to be found.",
)
def index(artifact: Path, histories: Path, output: Path | None, lists: int | None, recall: float) -> None:
    """Add an index to ARTIFACT, for catalogues of several million items: a new artifact, and LATEST names it.

    ARTIFACT is an artifact or the folder that holds LATEST. A search visits as few lists as find --recall of the
    exact best 20 over a sample of --histories; what they name is scored exactly. Needs 'srgnn[ann]'.
    """
    old = load(artifact, exact=True)
    recommender = old.recommender
    model = model_of(recommender.scorer)
    catalogue = model.catalogue
    sample = _sample(histories, recommender)
    vectors = model.session_vectors([recommender.sequence(history) for history in sample])
    started = time.monotonic()
    built = ann.build(catalogue.matrix, catalogue.servable.numpy(), lists)
    seconds = time.monotonic() - started
    best = catalogue.top_k(vectors, min(20, catalogue.num_items)).rows
    found = ann.choose_probes(built, vectors, best, recall)
    settings = {
        "kind": built.name,
        "lists": built.lists,
        "probes": built.probes,
        "candidates": ann.CANDIDATES,
        "recall_wanted": recall,
        "recall_at_20": round(found, 5),
        "histories": len(sample),
        "build_seconds": round(seconds, 1),
    }
    path = save_with_index(output or old.path.parent, old, built, settings, sample[: PROBES - 1])
    emit({"artifact": str(path), "name": path.name, **settings})


def _sample(histories: Path, recommender: Recommender) -> Sequence[list[str]]:
    """At most SAMPLE of the histories that hold a known item, each equally likely (reservoir sampling)."""
    if not histories.is_file():
        raise InputError(f"histories {histories} is not a file: give a text file, one session a line")
    known = (each.items for each in read_text(histories) if len(recommender.sequence(each.items)))
    draw, sample = random.Random(0), list(itertools.islice(known, SAMPLE))
    for seen, history in enumerate(known, start=SAMPLE + 1):
        place = draw.randrange(seen)
        if place < SAMPLE:
            sample[place] = history
    if not sample:
        raise InputError(f"histories {histories} hold no item of the catalogue: are the ids separated by spaces?")
    return sample


@click.command()
@click.argument("artifact", type=click.Path(exists=True, path_type=Path))
def inspect(artifact: Path) -> None:
    """What is in ARTIFACT: model, rules, sizes, metrics, provenance; checks hashes, shapes and probes.

    ARTIFACT is an artifact or the folder that holds LATEST.
    """
    loaded = load(artifact)
    checked = ["hashes", "shapes", "probes"]  # load() raises on the first that fails
    click.echo(f"{loaded.name}  ({loaded.path})")
    click.echo(f"checked: {', '.join(checked)}")
    for line in _outline(loaded.manifest):
        click.echo(line)
    size = sum(file["bytes"] for file in loaded.manifest["files"].values())
    emit({"name": loaded.name, "path": str(loaded.path), "bytes": size, "checked": checked, **loaded.manifest})


def _outline(value: dict[str, Any], indent: str = "") -> Iterator[str]:
    """A nested dictionary as indented lines."""
    for key, inner in value.items():
        if isinstance(inner, dict) and set(inner) == {"bytes", "sha256"}:
            yield f"{indent}{key}: {inner['bytes']:,} bytes, sha256 {inner['sha256'][:12]}"
        elif isinstance(inner, dict):
            yield f"{indent}{key}:"
            yield from _outline(inner, indent + "  ")
        else:
            yield f"{indent}{key}: {_shown(inner)}"


def _shown(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f"{len(value)} values, the last {value[-1]}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
