from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.corpora import DAY_S, START_S
from training.config import load_recipe
from training.corpus import Corpus
from training.prepare import prepare

Row = tuple[Any, Any, Any]
HEADER = "session_id,item_id,timestamp"


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., Path]:
    """Write (session, item, time) rows as a csv that the `default` recipe reads with times in seconds."""

    def write(rows: Iterable[Row], name: str = "clicks.csv", header: str = "session_id,item_id,timestamp") -> Path:
        path = tmp_path / name
        lines = [header, *(",".join(str(value) for value in row) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], Corpus]]:
    """Prepare with the `default` recipe (seconds, support 1) and open the result."""

    def prepare_log(
        *inputs: Path, recipe: str = "default", settings: Sequence[str] = ()
    ) -> tuple[dict[str, Any], Corpus]:
        base = ["columns.time_unit=s", "data.minimum_item_support=1"] if recipe == "default" else []
        chosen = load_recipe(recipe, [*base, *settings])
        output = tmp_path / "corpus"
        summary = prepare(chosen, inputs, output, progress=lambda line: None)
        return summary, Corpus.open(output)

    return prepare_log


@pytest.fixture
def shop_log() -> list[Row]:
    """Twenty sessions a, b, c a day apart: 18 train or validation, 2 test, nothing to drop."""
    return [
        (f"s{day:02d}", item, START_S + day * DAY_S + click * 10)
        for day in range(20)
        for click, item in enumerate(("a", "b", "c"))
    ]
