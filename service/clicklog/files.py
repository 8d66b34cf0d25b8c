"""Exported clicks: a folder of Parquet files, each click in one of them.

    clicks-2026-11-24-<id of its first click>-<id of its last>.parquet

A file has the columns of ``SCHEMA``, clicks in order; the other names in the folder are hidden and not clicks. Files
are whole or not there. The ids in the names tell where to look for a click, so nothing is remembered beside them.
"""

import fcntl
import json
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from srgnn.atomic import replaced_when_whole, sync
from srgnn.errors import ConfigError, DataError

from .queue import Entry, StreamId

SCHEMA = pa.schema(
    {
        "session_id": pa.string(),
        "item_id": pa.string(),
        "timestamp": pa.timestamp("ms", tz="UTC"),
        "event_id": pa.string(),  # null where there was none
        "stream_id": pa.string(),
    }
)
METADATA_KEY = b"srgnn-clicks"
LOOK_BACK_MS = 3_600_000
"""A repeated event id is recognised at least this long after its click."""

_NAME = re.compile(r"clicks-\d{4}-\d\d-\d\d-(\d+-\d+)-(\d+-\d+)\.parquet")
_LOCK = ".exporter"


class ClickFile(NamedTuple):
    """A file and the ids of the first and the last click that were written to it."""

    path: Path
    first: StreamId
    last: StreamId

    def read(self, *columns: str) -> pa.Table:
        """These columns, or all. Raises DataError where the file is damaged."""
        try:
            with pq.ParquetFile(self.path) as file:
                return file.read(columns=list(columns) or None, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{self.path} cannot be read as Parquet: {error}. Move it away; its clicks are then neither "
                "recognised nor forgotten by the exporter"
            ) from error


class ClickFiles:
    """The folder, for as long as no other process writes to it.

    Raises ConfigError where another does, or where it cannot be written to; OSError where the disk fails later.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(
                f"cannot write to {self.folder}: {error.strerror or error}; give another --output, or the rights"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ConfigError(
                f"another exporter writes to {self.folder}: one is enough, stop it first or leave it to it"
            ) from error
        for partial in self.folder.glob(".clicks-*.partial"):  # of one that was killed
            partial.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def identity(self) -> str:
        """A name of the folder that moves with it, made on first use."""
        if found := os.pread(self._lock, 64, 0):
            return found.decode()
        name = secrets.token_hex(16)
        os.pwrite(self._lock, name.encode(), 0)
        sync(self.folder)  # before Redis remembers it
        return name

    def beat(self) -> None:
        """Show that the exporter is alive: the time of the hidden file."""
        os.utime(self._lock)

    def write(self, clicks: Sequence[Entry], counts: Mapping[str, Any]) -> Path:
        """One new file of clicks in the order of their ids; ``counts`` go into its metadata."""
        first, last = clicks[0].id, clicks[-1].id
        day = datetime.fromtimestamp(first.ms / 1000, UTC).date()
        path = self.folder / f"clicks-{day}-{first}-{last}.parquet"
        _write(path, _table(clicks).replace_schema_metadata({METADATA_KEY: json.dumps(counts)}))
        return path

    def written(self, ids: Collection[StreamId]) -> set[StreamId]:
        """Those of the ids that some file holds already."""
        candidates = list(self._between(min(ids), max(ids))) if ids else []
        if not candidates:  # but after a kill
            return set()
        wanted = set(map(str, ids))
        found = [wanted.intersection(file.read("stream_id")["stream_id"].to_pylist()) for file in candidates]
        return {StreamId.parse(name) for name in set().union(*found)}

    def events(self, clicks: Sequence[Entry]) -> set[tuple[str, str]]:
        """(session, event) of clicks of the same sessions, from ``LOOK_BACK_MS`` before the first of these on."""
        sessions = {click.session for click in clicks if click.event}
        found: set[tuple[str, str]] = set()
        if not sessions:
            return found
        since = StreamId(clicks[0].id.ms - LOOK_BACK_MS, 0)
        for file in self._between(since, clicks[-1].id):
            table = file.read("session_id", "event_id")
            same = pc.and_(_is_in(table["session_id"], sessions), table["event_id"].is_valid())
            kept = table.filter(same)
            found.update(zip(kept["session_id"].to_pylist(), kept["event_id"].to_pylist(), strict=True))
        return found

    def forget(self, forgotten: Mapping[str, StreamId]) -> int:
        """Take the clicks of each session before its id out of all files; how many there were."""
        if not forgotten:
            return 0
        return sum(_forget(file, forgotten) for file in self._between(StreamId(0, 0), max(forgotten.values())))

    def _between(self, first: StreamId, last: StreamId) -> Iterator[ClickFile]:
        for name in sorted(os.listdir(self.folder)):
            if match := _NAME.fullmatch(name):
                file = ClickFile(self.folder / name, StreamId.parse(match[1]), StreamId.parse(match[2]))
                if file.first <= last and first <= file.last:
                    yield file


def _table(clicks: Sequence[Entry]) -> pa.Table:
    columns = [
        [click.session for click in clicks],
        [click.item for click in clicks],
        [click.id.ms for click in clicks],
        [click.event or None for click in clicks],
        [str(click.id) for click in clicks],
    ]
    return pa.table(columns, schema=SCHEMA)


def _write(path: Path, table: pa.Table) -> None:
    with replaced_when_whole(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def _forget(file: ClickFile, forgotten: Mapping[str, StreamId]) -> int:
    if not pc.any(_is_in(file.read("session_id")["session_id"], forgotten)).as_py():
        return 0
    table = file.read()
    names = zip(table["session_id"].to_pylist(), table["stream_id"].to_pylist(), strict=True)
    kept = [session not in forgotten or StreamId.parse(name) > forgotten[session] for session, name in names]
    left = table.filter(pa.array(kept))
    if len(left) < len(table):
        _write(file.path, left)
    return len(table) - len(left)


def _is_in(column: pa.ChunkedArray, values: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(values, pa.string()))
