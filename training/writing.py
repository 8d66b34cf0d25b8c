"""Usable clicks -> corpus: the protocol, the numbers of sessions and items, the summary, the files."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ibis.expr.types import Table

from srgnn.errors import DataError
from srgnn.vocabulary import Vocabulary

from . import sources
from .config import DataConfig, Recipe
from .corpus import SPLITS, CorpusWriter
from .protocols import PROTOCOLS
from .reading import Log, period
from .sources import files
from .sources.synthetic import ClickProcess
from .steps import TEST, TRAIN, VALIDATION, encode_clicks, number_items, number_sessions, session_table
from .windows import Window, date
from .workspace import Workspace

ROWS_PER_BLOCK = 1_000_000
BEST_RECALL_K = 20

IntArray = npt.NDArray[np.int64]


def make_corpus(workspace: Workspace, log: Log, output: Path, window: Window | None = None) -> dict[str, Any]:
    """Apply the recipe's protocol, write what is left to `output` and return its summary.

    Raises DataError where a split that the recipe asks for would be empty; then nothing is written.
    """
    recipe = log.recipe
    clicks = PROTOCOLS[recipe.data.protocol](workspace, log.clicks, recipe.data)
    sessions = workspace.keep(number_sessions(session_table(clicks)))
    items = workspace.keep(number_items(clicks, log.names))
    encoded = workspace.keep(encode_clicks(clicks, sessions, items))
    vocabulary = Vocabulary(workspace.engine.to_pyarrow(items.order_by("row"))["name"].to_pylist())
    lengths = [_lengths(workspace, sessions, split) for split in range(len(SPLITS))]
    _require_splits(lengths, recipe.data)
    has_clock = recipe.data.source not in sources.WITHOUT_CLOCK
    summary = _summary(workspace, recipe, lengths, len(vocabulary))
    if has_clock:
        summary["first_click"], summary["last_click"] = map(date, period(workspace, clicks))
    if recipe.data.source == "synthetic":
        summary[f"best_achievable_recall@{BEST_RECALL_K}"] = _best_recall(
            workspace, recipe, encoded, lengths, vocabulary
        )
    if window:
        summary["window"] = window.to_json()
    with CorpusWriter(output) as writer:
        for split, name in enumerate(SPLITS):
            writer.write_split(name, lengths[split], _blocks(workspace, encoded, lengths, split, has_clock))
        origin = {"inputs": [{"name": file.name, "bytes": _size(file)} for file in log.inputs]}
        writer.commit(vocabulary, {**summary, **origin, "settings": recipe.as_dict()})
    place = output.name if window else output
    workspace.progress(f"wrote {summary['clicks']:,} clicks of {summary['sessions']:,} sessions to {place}")
    for table in (clicks, sessions, items, encoded):
        workspace.forget(table)
    return summary


def _size(input: Path) -> int:
    return sum(file.stat().st_size for file in files.parquet_files(input))


def _lengths(workspace: Workspace, sessions: Table, split: int) -> IntArray:
    """Clicks per session in corpus order: int64 [S]."""
    ordered = sessions.filter(sessions.split == split).order_by("number").select("length")
    return np.asarray(workspace.engine.to_pyarrow(ordered)["length"], dtype=np.int64)


def _require_splits(lengths: Sequence[IntArray], data: DataConfig) -> None:
    wanted = (True, data.validation_share or data.validation_days, data.test_share or data.test_days)
    found = ", ".join(f"{len(one):,} {name}" for name, one in zip(SPLITS, lengths, strict=True))
    for name, split_lengths, is_wanted in zip(SPLITS, lengths, wanted, strict=True):
        if is_wanted and not len(split_lengths):
            raise DataError(
                f"no session is left for the {name} set ({found} sessions): give more clicks, or change "
                "data.test_share, data.test_days, data.validation_share, data.validation_days or "
                "data.minimum_item_support"
            )


def _summary(workspace: Workspace, recipe: Recipe, lengths: Sequence[IntArray], items: int) -> dict[str, Any]:
    examples = [int(one.sum()) - len(one) for one in lengths]
    clicks = int(sum(one.sum() for one in lengths))
    return {
        "recipe": recipe.name,
        "source": recipe.data.source,
        "protocol": recipe.data.protocol,
        "train_examples": examples[TRAIN] + examples[VALIDATION],  # together, as the papers count
        "validation_examples": examples[VALIDATION],
        "test_examples": examples[TEST],
        "items": items,
        "clicks": clicks,
        "sessions": sum(len(one) for one in lengths),
        "rows": workspace.rows_read,
        "dropped_rows": workspace.rows_read - clicks,
        "dropped": workspace.dropped,
        "splits": {
            name: {"sessions": len(one), "clicks": int(one.sum())} for name, one in zip(SPLITS, lengths, strict=True)
        },
    }


def _blocks(
    workspace: Workspace, encoded: Table, lengths: Sequence[IntArray], split: int, has_clock: bool
) -> Iterator[tuple[Any, Any]]:
    """(rows, times) of one split in corpus order, whole sessions at a time."""
    first_number = sum(len(one) for one in lengths[:split])
    ends = np.cumsum(lengths[split])
    block_of = (ends - 1) // ROWS_PER_BLOCK
    bounds = first_number + np.append(np.unique(block_of, return_index=True)[1], len(ends))
    for start, end in pairwise(bounds.tolist()):
        block = encoded.filter((encoded.number >= start) & (encoded.number < end))
        ordered = workspace.engine.to_pyarrow(block.order_by("number", "time", "position"))
        yield ordered["row"], ordered["time" if has_clock else "number"]


def _best_recall(
    workspace: Workspace, recipe: Recipe, encoded: Table, lengths: Sequence[IntArray], vocabulary: Vocabulary
) -> float:
    """The best Recall that the simulator's own probabilities allow on the test sessions."""
    process = ClickProcess.build(recipe.synthetic)
    code = {item: index for index, item in enumerate(process.ids)}
    codes = np.array([code[item] for item in vocabulary.ids])
    rows = np.concatenate([rows for rows, _ in _blocks(workspace, encoded, lengths, TEST, has_clock=True)])
    sessions = np.split(codes[rows], np.cumsum(lengths[TEST])[:-1])
    return round(process.best_recall(sessions, BEST_RECALL_K), 6)
