"""What a search found, as numbers, as a table and as a recipe; ``training.tune`` makes it."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import tomli_w

from srgnn import __version__
from srgnn.atomic import replaced_when_whole
from srgnn.errors import DataError

from .config import Recipe
from .space import with_values

Outcome = Literal["complete", "pruned", "failed"]
FIGURES = ("recall@20", "mrr@20")


@dataclass(frozen=True)
class Trial:
    """A trial that is over."""

    number: int
    """From 1; interrupted trials have none, they are made again."""
    settings: dict[str, Any]
    """section.setting -> the value it was trained with, for everything that is searched."""
    outcome: Outcome
    epochs: int
    seconds: float
    best: dict[str, float]
    """The record of its best epoch; empty where none came to its end."""
    error: str = ""

    def figures(self) -> str:
        """Its best epoch in words."""
        values = ", ".join(f"{name} {self.best[name]:.4f}" for name in FIGURES)
        return f"{values} in epoch {self.best['epoch']}"


def best_of(trials: Sequence[Trial]) -> Trial:
    """The whole trial with the best score, the first of equals. Raises DataError where none came to its end."""
    whole = [trial for trial in trials if trial.outcome == "complete"]
    if not whole:
        errors = [f"; the first failed like this: {trial.error}" for trial in trials if trial.error]
        raise DataError(f"none of {len(trials)} trials came to its end{''.join(errors[:1])}")
    return max(whole, key=lambda trial: trial.best["score"])


def count(trials: Sequence[Trial], outcome: Outcome) -> int:
    """How many ended like this."""
    return [trial.outcome for trial in trials].count(outcome)


def write_table(trials: Sequence[Trial], path: Path) -> None:
    """All trials as CSV, one a row."""
    columns = ["trial", "outcome", "epochs", "best_epoch", *FIGURES, "seconds", *trials[0].settings, "error"]
    with replaced_when_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(columns)
        for trial in trials:
            best = [trial.best.get(name, "") for name in ("epoch", *FIGURES)]
            end = [trial.seconds, *trial.settings.values(), trial.error]
            rows.writerow([trial.number, trial.outcome, trial.epochs, *best, *end])


def write_recipe(recipe: Recipe, corpus_id: str, trials: Sequence[Trial], path: Path) -> None:
    """The recipe with the best trial's settings, complete, under a comment that says where they come from."""
    best = best_of(trials)
    before, winner = recipe.as_dict(), with_values(recipe, best.settings).as_dict()
    changed = [
        f"{section}.{name} = {value!r}, was {before[section][name]!r}"
        for section, values in winner.items()
        if section != "name"
        for name, value in values.items()
        if value != before[section][name]
    ]
    head = [
        f"Found by srgnn {__version__} tune on {datetime.now(UTC):%Y-%m-%d}, from recipe {recipe.name!r}.",
        f"Corpus {corpus_id}",
        f"{len(trials)} trials, {count(trials, 'pruned')} pruned, {count(trials, 'failed')} failed. "
        f"Trial {best.number} is the best:",
        f"validation {best.figures()}.",
        "It was chosen by these figures, so they flatter it: the test split knows better.",
        *(changed or ["Nothing was better than the recipe itself."]),
    ]
    del winner["name"]  # a recipe is named after its file
    text = "".join(f"# {line}\n" for line in head) + "\n" + tomli_w.dumps(winner)
    with replaced_when_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
