"""RetailRocket's shop events, in two layouts that their headers tell apart.

- events.csv as published: timestamp,visitorid,event,itemid,transactionid. Only `view` events are clicks. A
  visitor is not a session: set data.session_gap_minutes (30 is usual).
- the sessions that benchmark suites cut from it: timestamp, user_id, item_id, session_id, tab-separated.

Copies in seconds and in milliseconds go around, so columns.time_unit must say which: s or ms.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ibis
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

from srgnn.errors import ConfigError

from ..config import ColumnsConfig, Recipe
from . import delimited, files

SESSIONS = ColumnsConfig(session="session_id", item="item_id", time="timestamp", delimiter="\t")
EVENTS = ColumnsConfig(session="visitorid", item="itemid", time="timestamp", delimiter=",")


def read(engine: Backend, inputs: Sequence[Path], recipe: Recipe) -> Table:
    """Canonical clicks with `kind` (the event). Raises ConfigError unless the time unit is set."""
    unit = recipe.columns.time_unit
    if unit == "iso":
        raise ConfigError("RetailRocket's times are numbers: --set columns.time_unit=ms (as published) or =s")
    tables = [_read_one(engine, file, part) for part, file in enumerate(inputs)]
    return ibis.union(*[_canonical(table, replace(columns, time_unit=unit)) for table, columns in tables])


def _read_one(engine: Backend, file: Path, part: int) -> tuple[Table, ColumnsConfig]:
    published = "visitorid" in files.first_line(file)
    columns = EVENTS if published else SESSIONS
    needed = [columns.session, columns.item, columns.time, *(["event"] if published else [])]
    return files.read_text(engine, file, part, files.Layout(needed, columns.delimiter)), columns


def _canonical(table: Table, columns: ColumnsConfig) -> Table:
    kind = table.event if "event" in table.columns else ibis.literal("view")
    return delimited.canonical(table, columns, kind=kind)
