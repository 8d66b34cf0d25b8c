"""Where a preparation runs: the engine, what it keeps on disk, and the count of dropped rows."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import ibis
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

Progress = Callable[[str], None]


def print_progress(line: str) -> None:
    """The default progress: one line on stderr."""
    print(line, file=sys.stderr, flush=True)


@dataclass
class Workspace:
    """The engine, a folder for what it spills, and the count of dropped rows so far."""

    memory_mb: int
    num_inputs: int
    progress: Progress
    rows_read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="srgnn-prepare-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.engine: Backend = ibis.duckdb.connect(
            ":memory:",  # half the time of a database file; what does not fit is spilled all the same
            memory_limit=f"{self.memory_mb}MB",
            temp_directory=str(self.folder / "spill"),
        )
        self._tables = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.disconnect()
        self._folder.cleanup()

    def keep(self, table: Table) -> Table:
        """Compute `table` once and keep the result on disk."""
        self._tables += 1
        return self.engine.create_table(f"step_{self._tables}", table)

    def count(self, table: Table) -> int:
        """Number of rows."""
        return int(self.engine.to_pyarrow(table.count()).as_py())

    def drop(self, reason: str, before: Table, after: Table) -> Table:
        """Compute `after`, count the rows of `before` that it lacks under `reason` and forget `before`."""
        kept = self.keep(after)
        self.add_dropped(reason, self.count(before) - self.count(kept))
        self.forget(before)
        return kept

    def forget(self, table: Table) -> None:
        """Free the disk space of a kept table."""
        # Plain SQL: Backend.drop_table of ibis 12.0 writes a statement without the table's name.
        self.engine.raw_sql(f"DROP TABLE {table.get_name()}")

    def restart(self, rows: int) -> None:
        """Count from here, for another corpus: `rows` rows, none of them dropped."""
        self.rows_read, self.dropped = rows, {}

    def add_dropped(self, reason: str, rows: int) -> None:
        """Count rows under a reason."""
        if rows:
            self.dropped[reason] = self.dropped.get(reason, 0) + rows
            self.progress(f"dropped {rows:,} rows: {reason}")
