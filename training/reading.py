"""Click log -> usable clicks: what a row must have, what is said of a log that cannot be right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
from ibis.expr.types import Table

from srgnn.errors import ConfigError, DataError, InputError
from srgnn.vocabulary import check_item_id

from . import sources
from .config import Recipe
from .sources import files
from .steps import absent, by_number, flag_problems, numbered, separate_files, split_at_gaps, usable_clicks
from .windows import MS_PER_DAY, date, require_windows
from .workspace import Workspace

MS_PER_MINUTE = 60_000
LARGEST_SECONDS = 1e11  # the year 5138; in milliseconds it is 1973


@dataclass(frozen=True)
class Log:
    """What was read: usable clicks by number, the items' names, and where they come from."""

    clicks: Table
    names: Table
    recipe: Recipe
    inputs: Sequence[Path]


def require_inputs(recipe: Recipe, inputs: Sequence[Path]) -> None:
    """Raise ConfigError where the recipe cannot be prepared from so many inputs, or from such."""
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


def read_log(workspace: Workspace, recipe: Recipe, inputs: Sequence[Path]) -> Log:
    """Read `inputs`: unusable rows are counted and dropped, visits separated, sessions and items numbered.

    Raises DataError where no click is left, or where most lines or times cannot be read.
    """
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
    return Log(clicks, items, recipe, inputs)


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
    first, last = period(workspace, clicks)
    workspace.progress(f"clicks from {date(first)} to {date(last)}")
    if last < 365 * MS_PER_DAY:
        workspace.progress(
            f"warning: the last click is dated {date(last)}; "
            "if the log's times count seconds, --set columns.time_unit=s"
        )


def period(workspace: Workspace, clicks: Table) -> tuple[int, int]:
    """Times of the first and the last click, in ms."""
    ends = workspace.engine.to_pyarrow(clicks.agg(first=clicks.time.min(), last=clicks.time.max()))
    return ends["first"][0].as_py(), ends["last"][0].as_py()


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{rows:,} {reason}" for reason, rows in counts.items())
