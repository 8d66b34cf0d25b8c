"""Reading text and Parquet strictly: nothing is sniffed, every line that does not fit is counted."""

import csv
import difflib
import gzip
import lzma
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import ibis
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

from srgnn.errors import DataError

POSITIONS_PER_FILE = 2**40
NO_DELIMITER = "\x01"
"""Control characters are never part of an item id, so a line that holds one is malformed anyway."""


class Layout(NamedTuple):
    """What a text file must look like."""

    columns: Sequence[str]  # columns the reader needs; without a header: all columns, in order
    delimiter: str
    header: bool = True
    quote: str = '"'


def usable(file: Path, folder: Path) -> Path:
    """`file` in a form the engine reads: .xz is decompressed into `folder`, everything else stays.

    A folder of Parquet files counts as one file. Raises DataError where the file is missing, empty, damaged or
    compressed in another way.
    """
    if file.is_dir():
        if not parquet_files(file):
            raise DataError(f"input {file} is a folder without a .parquet file: expected a click log")
        return file
    if not file.is_file():
        raise DataError(f"input {file} does not exist or is not a file: check --input")
    if file.stat().st_size == 0:
        raise DataError(f"input {file} is empty: expected a click log")
    if file.suffix in {".zip", ".bz2", ".zst", ".7z"}:
        raise DataError(f"input {file} is compressed as {file.suffix}: expected plain, .gz or .xz; decompress it")
    if file.suffix != ".xz":
        return file
    plain = folder / file.stem
    try:
        with lzma.open(file) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(f"input {file} is not a complete .xz file: {error}") from error
    return usable(plain, folder)


def parquet_files(input: Path) -> list[Path]:
    """The one file; of a folder its Parquet files in the order of their names, without hidden ones."""
    if not input.is_dir():
        return [input]
    return sorted(file for file in input.glob("*.parquet") if not file.name.startswith("."))


def read_text(engine: Backend, file: Path, part: int, layout: Layout) -> Table:
    """All columns of one file as text, with `part` and a `position` that orders rows of all files.

    Lines that are malformed or not UTF-8 are left out; `rejected_lines` counts them afterwards.
    """
    columns = read_header(file, layout) if layout.header else list(layout.columns)
    try:
        table = engine.read_csv(
            str(file),
            columns=dict.fromkeys(columns, "VARCHAR"),
            header=layout.header,
            delim=layout.delimiter,
            quote=layout.quote,
            escape=layout.quote,
            auto_detect=False,
            ignore_errors=True,
            store_rejects=True,
            rejects_table=f"rejects_{part}",
            rejects_scan=f"reject_scans_{part}",
        )
    except duckdb.Error as error:
        raise DataError(f"input {file} cannot be read: {error}") from error
    return with_position(table, part)


def read_parquet(engine: Backend, file: Path, part: int, needed: Sequence[str]) -> Table:
    """The columns of a Parquet file, or of a folder of them, in their own types, with `part` and `position`."""
    try:
        table = engine.read_parquet([str(one) for one in parquet_files(file)])
    except duckdb.Error as error:
        raise DataError(f"input {file} cannot be read as Parquet: {error}") from error
    require_columns(file, table.columns, needed)
    return with_position(table, part)


def with_position(table: Table, part: int) -> Table:
    """Number the rows in file order; rows of a later file come later."""
    position = ibis.row_number().cast("int64") + part * POSITIONS_PER_FILE
    return table.mutate(part=ibis.literal(part, "int32"), position=position)


def rejected_lines(engine: Backend, parts: int) -> dict[str, int]:
    """Lines that `read_text` left out, by reason, once the tables it gave were read."""
    counts: dict[str, int] = {}
    present = {name for (name,) in engine.raw_sql("SELECT table_name FROM duckdb_tables()").fetchall()}
    for part in range(parts):
        if f"rejects_{part}" not in present:
            continue
        query = f"""
            SELECT is_text, count(*) FROM (
                SELECT bool_and(error_type <> 'INVALID ENCODING') AS is_text
                FROM rejects_{part} GROUP BY line_byte_position
            ) GROUP BY is_text"""
        for is_text, count in engine.raw_sql(query).fetchall():
            reason = "malformed_line" if is_text else "not_utf8"
            counts[reason] = counts.get(reason, 0) + count
    return counts


def first_line(file: Path) -> str:
    """The first line of a plain or .gz text file. Raises DataError where it cannot be read."""
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
            return stream.readline(1 << 20).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the first line of {file} is not UTF-8 text ({error}): convert it to UTF-8") from error
    except (OSError, EOFError) as error:
        raise DataError(f"input {file} cannot be read: {error}") from error


def read_header(file: Path, layout: Layout) -> list[str]:
    """Column names in the first line. Raises DataError where a needed one is missing."""
    line = first_line(file)
    if not line.strip():
        raise DataError(f"{file} begins with an empty line: expected a header with {_listed(layout.columns)}")
    columns = next(csv.reader([line.rstrip("\r\n")], delimiter=layout.delimiter))
    _require_delimiter(file, line, columns, layout)
    require_columns(file, columns, layout.columns)
    if len(set(columns)) < len(columns):
        raise DataError(f"the header of {file} names a column twice: {_listed(columns)}; rename one")
    return columns


def require_columns(file: Path, found: Sequence[str], needed: Sequence[str]) -> None:
    """Raise DataError unless every needed column was found."""
    for name in needed:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1, cutoff=0.4)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise DataError(
                f"{file} has no column '{name}', it has {_listed(found)}{hint or '.'} "
                "Name the log's columns with --set columns.session=..., columns.item=..., columns.time=..."
            )


def _require_delimiter(file: Path, line: str, columns: Sequence[str], layout: Layout) -> None:
    if len(columns) > 1 or len(layout.columns) == 1:
        return
    likely = [name for name, mark in (("\\t", "\t"), (";", ";"), (",", ","), ("|", "|")) if mark in line]
    remedy = f"; the line holds '{likely[0]}': --set 'columns.delimiter=\"{likely[0]}\"'" if likely else ""
    raise DataError(
        f"the header of {file} is one column, {line.strip()[:80]!r}, when it is cut at {layout.delimiter!r}: "
        f"expected {_listed(layout.columns)} (wrong delimiter?){remedy}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
