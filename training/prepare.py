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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from ibis.expr.types import Table

from srgnn.errors import ConfigError, DataError, InputError
from srgnn.vocabulary import Vocabulary, check_item_id

from . import sources
from .config import DataConfig, Recipe
from .corpus import SPLITS, WINDOW_FOLDER, CorpusWriter, replaced_when_complete, require_replaceable
from .sources import files
from .sources.synthetic import ClickProcess
from .steps import (
    TEST,
    TRAIN,
    VALIDATION,
    Cut,
    absent,
    assign_splits,
    by_number,
    encode_clicks,
    flag_problems,
    known_items,
    long_sessions,
    number_items,
    number_sessions,
    numbered,
    separate_files,
    session_table,
    split_at_gaps,
    starting_between,
    supported,
    supported_in_train,
    usable_clicks,
)
from .windows import MS_PER_DAY, Window, cut_windows, date, require_windows, too_small
from .workspace import Progress, Workspace, print_progress

ENGINES = ("duckdb",)
MS_PER_MINUTE = 60_000
LARGEST_SECONDS = 1e11  # the year 5138; in milliseconds it is 1973
ROWS_PER_BLOCK = 1_000_000
BEST_RECALL_K = 20

IntArray = npt.NDArray[np.int64]


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
    _require_inputs(recipe, paths)
    require_replaceable(output.resolve())
    try:
        with Workspace(recipe.data.memory_mb, len(paths), progress) as workspace:
            clicks, names = _read(workspace, recipe, paths)
            log = Log(clicks, names, recipe, paths)
            summary = (_write_windows if recipe.data.windows > 1 else _write)(workspace, log, output)
    except duckdb.Error as error:
        raise DataError(
            f"duckdb gave up: {error}; it had data.memory_mb = {recipe.data.memory_mb} and, for what does "
            f"not fit, the disk of {tempfile.gettempdir()}: raise the one, or point TMPDIR to a larger disk"
        ) from error
    return {**summary, "output": str(output), "seconds": round(time.perf_counter() - began, 3)}


@dataclass(frozen=True)
class Log:
    """What was read: usable clicks by number, the items' names, and where they come from."""

    clicks: Table
    names: Table
    recipe: Recipe
    inputs: Sequence[Path]


# --- reading ---


def _require_inputs(recipe: Recipe, inputs: Sequence[Path]) -> None:
    data = recipe.data
    require_windows(data)
    if data.source == "synthetic":
        return  # its reader says what is wrong with an input
    if not inputs:
        raise ConfigError(f"recipe '{recipe.name}' reads a click log, found no input: give --input PATH...")
    if data.split == "files" and not 2 <= len(inputs) <= 3:
        raise ConfigError(
            f"recipe '{recipe.name}' with data.split = 'files' got {len(inputs)} inputs: "
            "expected train and test, or train, validation and test; for a log that is not cut yet "
            "--set data.split=time"
        )
    folders = [path for path in inputs if path.is_dir()]
    if folders and data.source != "delimited":
        raise ConfigError(
            f"input {folders[0]} is a folder: expected files, only data.source = 'delimited' reads a folder; name them"
        )
    needs_clock = data.test_days or data.validation_days or data.session_gap_minutes
    if data.source in sources.WITHOUT_CLOCK and needs_clock:
        raise ConfigError(
            f"source '{data.source}' has no clock: expected data.test_days, data.validation_days and "
            "data.session_gap_minutes to be 0; use data.test_share and data.validation_share"
        )


def _read(workspace: Workspace, recipe: Recipe, inputs: Sequence[Path]) -> tuple[Table, Table]:
    """Usable clicks by number, and the item names; unusable rows are counted, visits separated."""
    raw = _read_raw(workspace, recipe, inputs)
    flagged = flag_problems(raw, _bad_items(workspace, raw))
    problems = workspace.engine.to_pyarrow(flagged.group_by("problem").agg(rows=flagged.count())).to_pylist()
    counts = {entry["problem"]: entry["rows"] for entry in problems if entry["problem"]}
    for reason, rows in sorted(counts.items()):
        workspace.add_dropped(reason, rows)
    _require_clock(workspace, raw, counts, recipe)
    clicks = usable_clicks(flagged)
    if recipe.data.split == "files":
        clicks = separate_files(clicks)
    if recipe.data.session_gap_minutes:
        gap_ms = round(recipe.data.session_gap_minutes * MS_PER_MINUTE)
        clicks = workspace.keep(split_at_gaps(clicks, gap_ms))
    sessions = workspace.keep(numbered(clicks, "session"))
    items = workspace.keep(numbered(clicks, "item"))
    clicks = workspace.keep(by_number(clicks, sessions, items))
    for table in (raw, sessions):
        workspace.forget(table)
    _report_period(workspace, clicks, recipe)
    return clicks, items


def _read_raw(workspace: Workspace, recipe: Recipe, inputs: Sequence[Path]) -> Table:
    readable = []
    for part, file in enumerate(inputs):
        folder = workspace.folder / str(part)
        folder.mkdir()
        readable.append(files.usable(file, folder))
    try:
        raw = workspace.keep(sources.READERS[recipe.data.source](workspace.engine, readable, recipe))
    except duckdb.Error as error:
        raise DataError(f"cannot read {', '.join(map(str, inputs))}: {error}") from error
    rejected = files.rejected_lines(workspace.engine, len(inputs))
    workspace.rows_read = workspace.count(raw) + sum(rejected.values())
    workspace.progress(f"read {workspace.rows_read:,} rows from {', '.join(map(str, inputs)) or 'the simulator'}")
    for reason, rows in rejected.items():
        workspace.add_dropped(reason, rows)
    if sum(rejected.values()) * 2 > workspace.rows_read:
        raise DataError(
            f"{sum(rejected.values()):,} of {workspace.rows_read:,} lines do not have the form of source "
            f"'{recipe.data.source}' ({_counts(rejected)}): "
            "check data.source, columns.delimiter and that the file is UTF-8"
        )
    return raw


def _bad_items(workspace: Workspace, raw: Table) -> Table:
    """Item ids that `check_item_id` refuses: the rule for logs is the rule for requests."""
    distinct = raw.filter(~absent(raw.item)).select("item").distinct()
    items = workspace.engine.to_pyarrow(distinct)["item"].to_pylist()
    bad = [item for item in items if not _is_item_id(item)]
    workspace.engine.con.register("bad_items", pa.table({"item": pa.array(bad, pa.string())}))
    return workspace.engine.table("bad_items")


def _is_item_id(item: str) -> bool:
    try:
        check_item_id(item)
    except InputError:
        return False
    return True


def _require_clock(workspace: Workspace, raw: Table, problems: dict[str, int], recipe: Recipe) -> None:
    """Raise DataError where more than half of the times cannot be read, or where nothing is left."""
    unparsable = problems.get("unparsable_time", 0)
    dated = workspace.count(raw) - problems.get("missing_time", 0)
    if unparsable * 2 > dated:
        example = workspace.engine.to_pyarrow(raw.filter(~absent(raw.bad_time)).select("bad_time").limit(1))
        written = example["bad_time"][0].as_py()
        raise DataError(
            f"{unparsable:,} of {dated:,} times cannot be read, for example {written!r}, as "
            f"columns.time_unit = '{recipe.columns.time_unit}'{_unit_hint(written)}"
        )
    if sum(problems.values()) == workspace.count(raw):
        raise DataError(f"no usable click in {workspace.rows_read:,} rows: {_counts(workspace.dropped)}")


def _unit_hint(written: str) -> str:
    try:
        number = float(written)
    except ValueError:
        return ": expected ISO 8601 (iso), such as 2014-04-07T10:51:09Z, or numbers since 1970 (s, ms)"
    unit, name = ("ms", "milliseconds") if number > LARGEST_SECONDS else ("s", "seconds")
    return f": a number of this size counts {name}, --set columns.time_unit={unit}"


def _report_period(workspace: Workspace, clicks: Table, recipe: Recipe) -> None:
    if recipe.data.source in sources.WITHOUT_CLOCK:
        return
    first, last = _period(workspace, clicks)
    workspace.progress(f"clicks from {date(first)} to {date(last)}")
    if last < 365 * MS_PER_DAY:
        workspace.progress(
            f"warning: the last click is dated {date(last)}; "
            "if the log's times count seconds, --set columns.time_unit=s"
        )


def _period(workspace: Workspace, clicks: Table) -> tuple[int, int]:
    period = workspace.engine.to_pyarrow(clicks.agg(first=clicks.time.min(), last=clicks.time.max()))
    return period["first"][0].as_py(), period["last"][0].as_py()


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{rows:,} {reason}" for reason, rows in counts.items())


# --- protocols ---


def _srgnn(workspace: Workspace, clicks: Table, data: DataConfig) -> Table:
    clicks = _drop_short(workspace, clicks, data)
    clicks = workspace.drop("low_support_item", clicks, supported(clicks, data.minimum_item_support))
    clicks = _drop_short(workspace, clicks, data)
    clicks = _cut(workspace, clicks, data)
    if data.split == "files":
        return clicks
    clicks = workspace.drop("unknown_item", clicks, known_items(clicks, VALIDATION))
    return _drop_short(workspace, clicks, data)


def _strict(workspace: Workspace, clicks: Table, data: DataConfig) -> Table:
    clicks = _drop_short(workspace, clicks, data)
    clicks = _cut(workspace, clicks, data)
    clicks = workspace.drop("low_support_item", clicks, supported_in_train(clicks, data.minimum_item_support))
    clicks = _drop_short(workspace, clicks, data)
    clicks = workspace.drop("unknown_item", clicks, known_items(clicks, TRAIN))
    return _drop_short(workspace, clicks, data)


PROTOCOLS = {"srgnn": _srgnn, "strict": _strict}


def _drop_short(workspace: Workspace, clicks: Table, data: DataConfig) -> Table:
    return workspace.drop("short_session", clicks, long_sessions(clicks, data.minimum_session_length))


def _cut(workspace: Workspace, clicks: Table, data: DataConfig) -> Table:
    sessions = workspace.keep(session_table(clicks))
    cut = _cut_of_files(workspace, sessions, data) if data.split == "files" else _cut_in_time(workspace, sessions, data)
    split = workspace.keep(assign_splits(clicks, sessions, cut))
    for table in (clicks, sessions):
        workspace.forget(table)
    return split


def _cut_in_time(workspace: Workspace, sessions: Table, data: DataConfig) -> Cut:
    test_start = _held_out_start(workspace, sessions, data.test_share, data.test_days)
    earlier = sessions if test_start is None else sessions.filter(sessions.start < test_start)
    validation_start = _held_out_start(workspace, earlier, data.validation_share, data.validation_days)
    return Cut(test_start=test_start, validation_start=validation_start)


def _cut_of_files(workspace: Workspace, sessions: Table, data: DataConfig) -> Cut:
    last = workspace.num_inputs - 1
    if last == TEST:
        return Cut(test_part=last, validation_part=VALIDATION)
    train = sessions.filter(sessions.part == 0)
    start = _held_out_start(workspace, train, data.validation_share, data.validation_days)
    return Cut(test_part=last, validation_start=start)


def _held_out_start(workspace: Workspace, sessions: Table, share: float, days: float) -> int | None:
    """Start of the first held-out session, in ms: the last `days`, or else the last `share` of sessions."""
    total = workspace.count(sessions)
    if days and total:
        return int(workspace.engine.to_pyarrow(sessions.start.max()).as_py()) - round(days * MS_PER_DAY)
    if total == 0 or share == 0:
        return None
    held_out = max(1, round(total * share))
    first = sessions.order_by("start").select("start").limit(1, offset=total - held_out)
    return int(workspace.engine.to_pyarrow(first)["start"][0].as_py())


# --- writing ---


def _write_windows(workspace: Workspace, log: Log, output: Path) -> dict[str, Any]:
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
                summary = _write(workspace, replace(log, clicks=clicks), folder / name, window)
            except DataError as error:
                raise too_small(window, error, sizes) from error
            summaries.append({**summary, "output": str(output / name)})
            dropped.update(workspace.dropped)
    shared = {name: summaries[0][name] for name in ("recipe", "source", "protocol")}
    clicks_written = sum(summary["clicks"] for summary in summaries)
    counts = {"rows": rows, "dropped_rows": rows - clicks_written, "dropped": dict(dropped)}
    return {**shared, "clicks": clicks_written, **counts, "windows": summaries}


def _write(workspace: Workspace, log: Log, output: Path, window: Window | None = None) -> dict[str, Any]:
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
        summary["first_click"], summary["last_click"] = map(date, _period(workspace, clicks))
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
    summary = {
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
    return summary


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
