"""Hyper-parameter search: trainings of one recipe with other settings, judged on validation, never on test; with
neighbours where the recipe has them, since what is best alone need not be best beside them (docs/log.md).

    output/
      study.db     every trial, also an open one: the state of the search (SQLite in Optuna's form; nothing is pickled)
      best.toml    the recipe of the best trial so far, for `srgnn train --config`
      trials.csv   every trial that is over

The first trial is the recipe itself, so on validation the result is never worse. The others are drawn by TPE (Bergstra
et al., NeurIPS 2011) from what those before them found, each by a generator of its own, seeded with their number: an
interrupted search makes the same trials as a whole one.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import optuna
import torch
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from srgnn.errors import ConfigError, DataError

from . import loop
from .config import Recipe
from .corpus import Corpus
from .space import Space, rounded, values_of, with_values
from .trials import FIGURES, Outcome, Trial, best_of, count, write_recipe, write_table

STUDY, RECIPE, TABLE = "study.db", "best.toml", "trials.csv"
UNPRUNED_TRIALS = 5
"""Trials that come to their end before one may be given up."""
IMPORTANCE_TRIALS = 10
"""With fewer whole trials it is a guess which settings mattered."""


@dataclass(frozen=True)
class Search:
    """What is searched, and on what."""

    recipe: Recipe
    corpus: Corpus
    space: Space
    own: dict[str, Any]
    """The recipe's values of what is searched: where the search begins."""
    seed: int

    def settings(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial trains with; the recipe's own values to the last digit."""
        own, space = self.own, self.space
        return {key: own[key] if drawn[key] == own[key] else rounded(drawn[key], space[key]) for key in space}

    def identity(self) -> dict[str, Any]:
        """All of it, flat and JSON-able."""
        sections = {section: values for section, values in self.recipe.as_dict().items() if section != "name"}
        return {
            "the corpus": self.corpus.fingerprint,
            "judged with neighbours": self.recipe.training.neighbours or None,  # a search without it judged all alone
            "--seed": self.seed,
            **{f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()},
            **{f"the space of {key}": distribution_to_json(self.space[key]) for key in sorted(self.space)},
        }


def tune(
    recipe: Recipe, corpus: Corpus, space: Space, output: Path, *, trials: int, seed: int = 1, device: str = "auto"
) -> dict[str, Any]:
    """Search until ``output`` holds so many trials, those of before included; return what the command prints.

    Raises ConfigError, DataError, or loop.Interrupted after a signal: the same call goes on from there.
    """
    search, where = Search(recipe, corpus, space, values_of(recipe, space), seed), loop.choose_device(device)
    if not corpus.validation.num_examples:
        raise DataError(
            f"{corpus.path} has no validation examples to judge a trial by: prepare it with a larger "
            "data.validation_share"
        )
    with _alone(output), _study(output) as study, loop.stop_signal() as stopped:
        _take_up(study, search)
        while (done := len(_over(study, search))) < trials and not stopped:
            study.sampler = optuna.samplers.TPESampler(seed=_seed(seed, done))
            _run(study, search, f"trial {done + 1} of {trials}", where, stopped)
            _write(search, _over(study, search), output)
        if done < trials:
            raise loop.Interrupted(f"stopped by signal {stopped[0]}; {output} holds {done} of {trials} trials")
        return _result(study, search, output)


def _run(study: optuna.Study, search: Search, label: str, device: torch.device, stopped: list[int]) -> None:
    """Train until the end, or until the trial is hopeless or fails; one that is interrupted stays open."""
    trial = study.ask(search.space)
    settings = search.settings(trial.params)
    click.echo(f"{label}: {', '.join(f'{key} {value}' for key, value in settings.items())}", err=True)
    records: list[dict[str, float]] = []
    state, error = TrialState.COMPLETE, ""
    try:
        recipe = with_values(search.recipe, settings)
        for record in loop.select(recipe, search.corpus, device, stopped):
            records.append(record)
            if "as_served" in record:
                continue
            trial.report(record["score"], int(record["epoch"]))
            if record["epoch"] < recipe.training.epochs and trial.should_prune():
                state = TrialState.PRUNED
                break
    except loop.Interrupted:
        return
    except (ConfigError, DataError, torch.OutOfMemoryError) as failure:
        # Pruned to the sampler, who forgets what failed but keeps away from what was pruned.
        state, error = TrialState.PRUNED, str(failure)
    best = max(records, key=lambda record: ("as_served" in record, record["score"]), default={})
    epochs = sum("as_served" not in record for record in records)
    seconds = round(sum(record["seconds"] for record in records), 1)
    trial.set_user_attr("found", {"epochs": epochs, "seconds": seconds, "best": best, "error": error})
    study.tell(trial, best["score"] if state == TrialState.COMPLETE else None, state)
    click.echo(f"{label}: {_outcome(_over(study, search))}", err=True)


def _outcome(trials: list[Trial]) -> str:
    """The last trial, and the best if it is another one."""
    last, whole = trials[-1], any(trial.outcome == "complete" for trial in trials)
    told = f"{last.outcome} after {last.seconds:.0f} s: {last.error or last.figures()}"
    if not whole or (best := best_of(trials)) is last:
        return told
    return f"{told} (best so far: trial {best.number}, {best.figures()})"


# The study


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """The folder, while no other search works in it: that would take our open trial for an interrupted one."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = os.open(output / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"cannot write to {output}: {error.strerror}; give another --output") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise ConfigError(f"another search works in {output}: wait for it, or give another --output") from error
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _study(output: Path) -> Iterator[optuna.Study]:
    """The study in ``output``, a new one where there is none. Raises DataError where it cannot be read."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = output / STUDY
    try:
        storage = RDBStorage(URL.create("sqlite", database=str(file.resolve())).render_as_string())
        pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS)
        study = optuna.create_study(
            storage=storage, study_name="srgnn", direction="maximize", pruner=pruner, load_if_exists=True
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{file} cannot be read: {reason}. Delete it, or give another --output") from error
    try:
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _take_up(study: optuna.Study, search: Search) -> None:
    """Put first what has to come first: the recipe itself, or what was interrupted. Raises where the search differs."""
    now = search.identity()
    before = study.user_attrs.get("identity", now)
    for name in before | now:
        if before.get(name) != now.get(name):
            raise ConfigError(
                f"the --output holds a search with another setting: {name} was {before.get(name)!r} and is now "
                f"{now.get(name)!r}. Use that, or give another --output"
            )
    study.set_user_attr("identity", now)
    if not study.trials:
        study.enqueue_trial(search.own)
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if trial.params.keys() == search.own.keys():
            study.enqueue_trial(trial.params)
        study.tell(trial.number, state=TrialState.FAIL)
    if done := len(_over(study, search)):
        click.echo(f"going on after trial {done}", err=True)


def _over(study: optuna.Study, search: Search) -> list[Trial]:
    """The trials that count, numbered; not those that were interrupted."""
    over = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])
    trials = []
    for number, one in enumerate(over, start=1):
        found = one.user_attrs["found"]
        ended: Outcome = "pruned" if one.state == TrialState.PRUNED else "complete"
        trials.append(Trial(number, search.settings(one.params), "failed" if found["error"] else ended, **found))
    return trials


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


# What is left of it


def _write(search: Search, trials: list[Trial], output: Path) -> None:
    """After every trial, so that whoever stops early has what was found."""
    if trials:
        write_table(trials, output / TABLE)
    if any(trial.outcome == "complete" for trial in trials):
        write_recipe(search.recipe, search.corpus.fingerprint, trials, output / RECIPE)


def _result(study: optuna.Study, search: Search, output: Path) -> dict[str, Any]:
    trials = _over(study, search)
    best = best_of(trials)
    _write(search, trials, output)
    return {
        "trials": len(trials),
        "pruned": count(trials, "pruned"),
        "failed": count(trials, "failed"),
        "best": {
            "trial": best.number,
            "settings": best.settings,
            "epoch": int(best.best["epoch"]),
            **{f"validation_{name}": best.best[name] for name in FIGURES},
        },
        "importance": _importance(study, count(trials, "complete")),
        "recipe": str(output / RECIPE),
        "seconds": round(sum(trial.seconds for trial in trials), 1),
    }


def _importance(study: optuna.Study, whole: int) -> dict[str, float] | None:
    """Each setting's share in what tells good trials from the rest (PED-ANOVA, Watanabe et al., IJCAI 2023)."""
    if whole < IMPORTANCE_TRIALS:
        return None
    return {key: round(share, 3) for key, share in optuna.importance.get_param_importances(study).items()}
