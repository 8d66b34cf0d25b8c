"""SR-GNN form: one session a line, item ids separated by spaces, lines in date order. There is no clock.

A line's place in the files stands for its time, so that 'the last sessions' are the last lines.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

from ..config import Recipe
from . import files

LAYOUT = files.Layout(("line",), files.NO_DELIMITER, header=False, quote="")
MAX_CLICKS_PER_LINE = 2**16


def read(engine: Backend, inputs: Sequence[Path], recipe: Recipe) -> Table:
    """Canonical clicks of all inputs; `time` is the line's position."""
    return ibis.union(*[canonical(files.read_text(engine, f, part, LAYOUT)) for part, f in enumerate(inputs)])


def canonical(lines: Table) -> Table:
    """One row per item id of every line."""
    words = lines.mutate(item=lines.line.re_split(r"\s+")).unnest("item", offset="click")
    words = words.filter(words.item != "")
    return words.select(
        session=words.position.cast("string"),
        item=words.item,
        time=words.position,
        bad_time=ibis.null("string"),
        part=words.part,
        position=words.click.cast("int64"),
    )
