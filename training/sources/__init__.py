"""Click logs -> canonical clicks, one reader per format.

A reader gives one Ibis table with a row per click:

    session   string  null where the log has none
    item      string  null where the log has none
    time      int64   ms since 1970 (a line's place where there is no clock), null where it cannot be read
    bad_time  string  what the log holds instead of a readable time
    part      int32   which input the row is from, counted from 0
    position  int64   orders rows that have the same session and time
    kind      string  optional: what the row is; anything but 'view' is not a click

Lines that cannot be cut into columns are not in the table; `files.rejected_lines` counts them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

from ..config import Recipe
from . import delimited, diginetica, retailrocket, sessions, synthetic, yoochoose

Reader = Callable[[Backend, Sequence[Path], Recipe], Table]

READERS: dict[str, Reader] = {
    "delimited": delimited.read,
    "diginetica": diginetica.read,
    "retailrocket": retailrocket.read,
    "sessions": sessions.read,
    "synthetic": synthetic.read,
    "yoochoose": yoochoose.read,
}

WITHOUT_CLOCK = {"sessions"}
"""Sources whose `time` only orders sessions."""
