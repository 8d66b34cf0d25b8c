"""RecSys Challenge 2015, yoochoose-clicks.dat: session, ISO time, item, category; commas, no header."""

from collections.abc import Sequence
from pathlib import Path

import ibis
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

from ..config import ColumnsConfig, Recipe
from . import delimited, files

LAYOUT = files.Layout(("session", "time", "item", "category"), ",", header=False)
COLUMNS = ColumnsConfig(session="session", item="item", time="time", time_unit="iso")


def read(engine: Backend, inputs: Sequence[Path], recipe: Recipe) -> Table:
    """Canonical clicks of all inputs."""
    tables = [files.read_text(engine, file, part, LAYOUT) for part, file in enumerate(inputs)]
    return ibis.union(*[delimited.canonical(table, COLUMNS) for table in tables])
