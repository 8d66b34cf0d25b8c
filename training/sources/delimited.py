"""Any csv, tsv or Parquet log with one click a row and named columns for session, item and time.

A folder of Parquet files is one log.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table, Value

from ..config import ColumnsConfig, Recipe
from . import clock, files


def read(engine: Backend, inputs: Sequence[Path], recipe: Recipe) -> Table:
    """Canonical clicks of all inputs."""
    return ibis.union(*[_read_one(engine, file, part, recipe.columns) for part, file in enumerate(inputs)])


def _read_one(engine: Backend, file: Path, part: int, columns: ColumnsConfig) -> Table:
    needed = [columns.session, columns.item, columns.time]
    if file.suffix == ".parquet" or file.is_dir():
        table = files.read_parquet(engine, file, part, needed)
    else:
        table = files.read_text(engine, file, part, files.Layout(needed, columns.delimiter))
    return canonical(table, columns)


def canonical(table: Table, columns: ColumnsConfig, **extra: Value) -> Table:
    """Rename and convert the three named columns; `extra` columns are added as they are."""
    written = table[columns.time]
    time = clock.to_ms(written, columns.time_unit)
    return table.select(
        session=table[columns.session].cast("string"),
        item=table[columns.item].cast("string"),
        time=time,
        bad_time=ibis.ifelse(time.isnull(), written.cast("string"), ibis.null("string")),
        part=table.part,
        position=table.position,
        **extra,
    )
