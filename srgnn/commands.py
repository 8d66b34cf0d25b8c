"""The commands ``srgnn recommend`` and ``srgnn inspect``."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .artifact import load
from .batch import recommend_file
from .cli import emit
from .errors import InputError
from .recommender import Recommender
from .vocabulary import check_item_id

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
    loaded = load(artifact)
    if history is not None:
        emit({"model": loaded.name, **recommend_history(loaded.recommender, history, k)})
    elif source is not None and output is not None:
        workers = workers or _workers_for(source)
        result = recommend_file(loaded.recommender, source, output, k, artifact=loaded.path, workers=workers)
        if result.clicks and result.clicks == result.unknown_clicks:
            click.echo(
                f"warning: none of the {result.clicks} clicks in {source} is on an item of {loaded.name}; "
                "are the ids separated by spaces, and of this catalogue?",
                err=True,
            )
        emit({"model": loaded.name, **result.to_json()})


def _workers_for(source: Path) -> int:
    large = source.is_file() and source.stat().st_size > LARGE_INPUT_BYTES
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
        "unknown_items": [item for item in clicked if recommender.vocabulary.row(item) is None],
        "items": [
            {"item_id": item, "score": score} for item, score in zip(answer.item_ids, answer.scores, strict=True)
        ],
        "source": answer.source,
    }


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
