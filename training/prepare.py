"""Click log -> corpus: the order of the steps of :mod:`training.steps`, which DuckDB runs in process by default.

    read -> drop unusable rows -> inactivity gap -> drop short sessions -> protocol -> vocabulary -> rows

The protocol decides what held-out clicks may tell:

`srgnn`   comparable with the published tables. Minimum support over the whole log, drop short sessions, cut;
          the vocabulary holds every item that is left. A cut by time drops test items that were not seen
          before the test period, as the published preprocessing does; files that come cut stay as they are.
`strict`  Cut, minimum support over the training set, drop short sessions; then unknown items are dropped from
          validation and test, and sessions that became too short. The vocabulary is the training set's.

A session belongs to the split in which its first click falls. Every dropped row is counted by reason. With several
windows (:mod:`training.windows`) all that follows the gap is done once a window, over the sessions that begin in it.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from srgnn.errors import ConfigError, DataError

from .config import Recipe
from .corpus import WINDOW_FOLDER, replaced_when_complete, require_replaceable
from .reading import Log, read_log, require_inputs
from .steps import session_table, starting_between
from .windows import cut_windows, too_small
from .workspace import Progress, Workspace, print_progress
from .writing import make_corpus

ENGINES = ("duckdb",)


def prepare(
    recipe: Recipe,
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    engine: str = "duckdb",
    progress: Progress = print_progress,
) -> dict[str, Any]:
    """Read `inputs`, write a corpus to `output` and return its summary (the JSON line of `srgnn prepare`).

    With several windows `output` is a folder of corpora, window-1 and so on, and the summary holds one of each.
    Raises ConfigError or DataError; then nothing is written and an older corpus in `output` is untouched.
    """
    began = time.perf_counter()
    if engine not in ENGINES:
        raise ConfigError(f"engine '{engine}' is not supported: expected {' or '.join(ENGINES)}")
    output = Path(output)
    paths = [Path(file) for file in inputs]
    require_inputs(recipe, paths)
    require_replaceable(output.resolve())
    try:
        with Workspace(recipe.data.memory_mb, len(paths), progress) as workspace:
            log = read_log(workspace, recipe, paths)
            summary = (_make_windows if recipe.data.windows > 1 else make_corpus)(workspace, log, output)
    except duckdb.Error as error:
        raise DataError(
            f"duckdb gave up: {error}; it had data.memory_mb = {recipe.data.memory_mb} and, for what does "
            f"not fit, the disk of {tempfile.gettempdir()}: raise the one, or point TMPDIR to a larger disk"
        ) from error
    return {**summary, "output": str(output), "seconds": round(time.perf_counter() - began, 3)}


def _make_windows(workspace: Workspace, log: Log, output: Path) -> dict[str, Any]:
    """A corpus a window, all of them or none."""
    sessions = workspace.keep(session_table(log.clicks))
    starts = workspace.engine.to_pyarrow(sessions.agg(first=sessions.start.min(), last=sessions.start.max()))
    windows = cut_windows(log.recipe.data, starts["first"][0].as_py(), starts["last"][0].as_py())
    inside = starting_between(log.clicks, sessions, windows[0].start, windows[-1].end)
    inside = workspace.drop("outside_windows", log.clicks, inside)
    sizes = [workspace.count(starting_between(sessions, sessions, one.start, one.end)) for one in windows]
    rows, dropped = workspace.rows_read, Counter(workspace.dropped)
    summaries = []
    with replaced_when_complete(output) as folder:
        for window, size in zip(windows, sizes, strict=True):
            clicks = workspace.keep(starting_between(inside, sessions, window.start, window.end))
            workspace.restart(workspace.count(clicks))
            workspace.progress(f"{window}: {workspace.rows_read:,} rows of {size:,} sessions")
            name = WINDOW_FOLDER.format(window.number)
            try:
                summary = make_corpus(workspace, replace(log, clicks=clicks), folder / name, window)
            except DataError as error:
                raise too_small(window, error, sizes) from error
            summaries.append({**summary, "output": str(output / name)})
            dropped.update(workspace.dropped)
    shared = {name: summaries[0][name] for name in ("recipe", "source", "protocol")}
    clicks_written = sum(summary["clicks"] for summary in summaries)
    counts = {"rows": rows, "dropped_rows": rows - clicks_written, "dropped": dict(dropped)}
    return {**shared, "clicks": clicks_written, **counts, "windows": summaries}
