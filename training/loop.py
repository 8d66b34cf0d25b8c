"""Training: a prepared corpus in, an artifact out. One flat loop, run once to choose the epoch and, where the recipe
says ``refit``, once more on train + validation for the chosen number of epochs; each time after it has trained the
``teachers``, if there are to be any.

Everything that changes during training lives in :class:`.run.Run`, so a checkpoint is a Run written down.
"""

import copy
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from srgnn.directory import check_dataset_name
from srgnn.errors import ConfigError, DataError
from srgnn.model import SRGNN
from srgnn.progress import progress
from srgnn.sequence import IntArray
from srgnn.session_batch import flat_session_batch

from . import checkpoint
from .config import Recipe, TrainingConfig
from .corpus import Corpus, Split, concatenate
from .evidence import add_evidence
from .examples import ExampleBatch, Examples
from .loss import catalogue_cross_entropy, compute_dtype
from .negatives import Negatives
from .product import save_artifact
from .run import Run, restore, save_checkpoint
from .schedule import batch_size, learning_rate
from .teachers import Teachers
from .validation import validate

CHECKPOINT_SECONDS = 300.0
"""A killed training loses at most this much work."""


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived; the checkpoint, if there is to be one, is written."""


def train(
    recipe: Recipe, corpus: Corpus, output: Path, *, resume: bool = False, device: str = "auto"
) -> dict[str, Any]:
    """Train ``recipe`` on ``corpus``; write the artifact into ``output`` and return what the command prints.

    Raises ConfigError, DataError, or Interrupted after a signal (a checkpoint to ``resume`` from is in ``output``).
    """
    check_dataset_name(recipe.name)  # now, not after hours
    if not resume and (output / checkpoint.NAME).exists():
        raise ConfigError(
            f"{output} holds an unfinished training: add --resume to continue it, or delete {checkpoint.NAME}"
        )
    run = _new_run(recipe, corpus, choose_device(device))
    if resume:
        restore(run, checkpoint.load(output))
    with stop_signal() as stopped:
        if run.stage == "select":
            _train_teachers(run, corpus.train, recipe.training.epochs, output, stopped)
            for _ in _fit(run, corpus.train, recipe.training.epochs, corpus.validation, output, stopped):
                save_checkpoint(run, output)
            run.best = run.best or _weights(run.model)
            add_evidence(run, corpus)
            if recipe.training.refit:
                run.stage, run.teachers = "refit", []
                _start_over(run)
        if run.stage == "refit":
            everything = concatenate(corpus.train, corpus.validation)
            _train_teachers(run, everything, run.best_epoch, output, stopped)
            for _ in _fit(run, everything, run.best_epoch, None, output, stopped):
                save_checkpoint(run, output)
            run.best = _weights(run.model)
    path = save_artifact(run, corpus, output)
    checkpoint.delete(output)
    return {
        "artifact": str(path),
        "epoch": run.best_epoch,
        "refit": recipe.training.refit,
        **{f"validation_{name}": value for name, value in run.selected.items()},
        **{f"validation_with_{what}_{name}": run.blended[what][name] for what in run.blended for name in run.selected},
        "seconds": round(run.seconds, 1),
        "epoch_seconds": float(np.median([record["seconds"] for record in run.history])),
        "device": str(run.device),
    }


def select(recipe: Recipe, corpus: Corpus, device: torch.device, stopped: list[int]) -> Iterator[dict[str, float]]:
    """The first half of :func:`train`, for what validation says alone: the record of each epoch when it is over; and
    where the recipe has evidence beside the model, at last the best epoch's with it, which ``as_served`` marks.

    Nothing is written, nothing is lost by not asking for the next epoch, and no teachers are trained. Raises as
    ``train`` does.
    """
    run = _new_run(replace(recipe, training=replace(recipe.training, teachers=0)), corpus, device)
    for _ in _fit(run, corpus.train, recipe.training.epochs, corpus.validation, None, stopped):
        yield run.history[-1]
    started = time.monotonic()
    add_evidence(run, corpus)
    if run.blended:
        served = [*run.blended.values()][-1]
        figures = {**served, "score": sum(served.values()), "seconds": round(time.monotonic() - started, 1)}
        yield {"epoch": run.best_epoch, "as_served": True, **figures}


def choose_device(name: str) -> torch.device:
    """``auto`` is cuda where there is one. Raises ConfigError for a cuda that is not there."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("--device cuda, but torch finds no GPU: use --device cpu, or install a CUDA build of torch")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def _fit(
    run: Run,
    split: Split,
    epochs: int,
    validation: Split | None,
    output: Path | None,
    stopped: list[int],
) -> Iterator[None]:
    """The loop: epochs of shuffled batches, then validation, until the epochs or the patience run out.

    Yields after each epoch. Within one, the state is saved in ``output``, if any.
    """
    config, rules = run.recipe.training, run.recipe.rules
    examples = Examples(split, rules)
    held_out = Examples(validation, rules) if validation is not None and validation.num_examples else None
    servable = np.bincount(split.items, minlength=run.model.num_items)
    negatives = Negatives(servable, config.negatives) if _samples(config, run.model.num_items) else None
    teachers = _teachers(run)
    size = batch_size(config, len(examples))
    steps = -(-len(examples) // size)
    saved_at = time.monotonic()
    while run.epoch < epochs and not _out_of_patience(run, held_out is not None):
        run.model.train()
        order = np.random.default_rng([run.seed, run.epoch]).permutation(len(examples))
        with progress(f"{_what(run)} epoch {run.epoch + 1}/{epochs}", len(examples)) as advance:
            advance(run.step * size)
            while run.step < steps:
                started = time.monotonic()
                indices = order[run.step * size : (run.step + 1) * size]
                rate = learning_rate(config, run.epoch * steps + run.step, steps)
                run.loss_sum += _update(run, examples.batch(indices), negatives, teachers, rate) * len(indices)
                run.step += 1
                run.seconds += time.monotonic() - started
                advance(len(indices))
                if output and (stopped or time.monotonic() - saved_at > CHECKPOINT_SECONDS):
                    save_checkpoint(run, output)
                    saved_at = time.monotonic()
                if stopped:
                    state = f"; {output / checkpoint.NAME} holds the state" if output else ""
                    raise Interrupted(f"stopped by signal {stopped[0]}{state}")
        _end_epoch(run, len(examples), held_out, servable)
        yield


def _update(
    run: Run, batch: ExampleBatch, negatives: Negatives | None, teachers: Teachers | None, rate: float
) -> float:
    """One step of the optimizers on one batch of examples; returns their mean loss."""
    loss = _loss(run, batch, negatives, teachers)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in run.optimizers:
        optimizer.step()
    value = loss.item()
    if not np.isfinite(value):
        raise DataError(
            f"the loss became {value} in epoch {run.epoch + 1}, step {run.step}: lower training.learning_rate "
            f"(now {run.recipe.training.learning_rate})"
        )
    return value


def _loss(run: Run, batch: ExampleBatch, negatives: Negatives | None, teachers: Teachers | None) -> Tensor:
    """Mean cross-entropy of the next clicks among all items, or among the candidates that stand for them."""
    graph = flat_session_batch(batch.items, batch.lengths).to(run.device)
    dtype = compute_dtype(run.recipe.training.precision, run.device)
    rows = correction = None
    if negatives is None:
        items = run.model.item_matrix()  # [V, d]
        nodes, targets = items[graph.x], torch.from_numpy(batch.targets)
    else:
        rng = np.random.default_rng([run.seed, run.epoch, run.step])
        candidates = negatives.draw(batch.targets, rng)
        rows, targets = torch.from_numpy(candidates.rows).to(run.device), torch.from_numpy(candidates.targets)
        items, nodes = run.model.item_matrix(rows), run.model.item_matrix(graph.x)  # [R, d], [N, d]
        correction = torch.from_numpy(candidates.correction).to(run.device)
    with torch.autocast(run.device.type, dtype, enabled=dtype != torch.float32):
        vectors = run.model.session_vectors(graph, nodes).float()  # [B, d]
        taught = teachers.of(graph, rows) if teachers else None
    return catalogue_cross_entropy(vectors, items, targets.to(run.device), dtype, correction, taught)


def _end_epoch(run: Run, num_examples: int, held_out: Examples | None, servable: IntArray) -> None:
    """Book the epoch: loss, validation, best weights so far."""
    started = time.monotonic()
    record = {"epoch": run.epoch + 1, "loss": run.loss_sum / num_examples}
    if held_out is not None:
        record |= validate(run.model, held_out, servable)
        record["score"] = record["recall@20"] + record["mrr@20"]
    run.seconds += time.monotonic() - started
    record["seconds"], run.seconds_before = round(run.seconds - run.seconds_before, 1), run.seconds
    if run.stage == "select" and not run.teaching:
        run.history.append(record)
        if run.best_epoch == record["epoch"]:
            run.best = _weights(run.model)
    run.epoch, run.step, run.loss_sum = run.epoch + 1, 0, 0.0
    figures = ", ".join(f"{name} {value:.4f}" for name, value in record.items() if name not in ("epoch", "seconds"))
    click.echo(f"{_what(run)} epoch {run.epoch}: {figures} after {run.seconds:.0f} s", err=True)


def _what(run: Run) -> str:
    """Is being trained, for people."""
    if run.teaching:
        return f"{run.stage}, teacher {len(run.teachers) + 1} of {run.recipe.training.teachers},"
    return run.stage


def _out_of_patience(run: Run, validated: bool) -> bool:
    return validated and len(run.history) - run.best_epoch >= run.recipe.training.patience


def _new_run(recipe: Recipe, corpus: Corpus, device: torch.device) -> Run:
    if not corpus.train.num_examples:
        raise DataError(f"{corpus.path} has no training examples: prepare a log with sessions of two clicks or more")
    model = SRGNN(recipe.model, len(corpus.vocabulary), recipe.rules.max_length).to(device)
    run = Run(recipe, model, [], corpus.fingerprint)
    _start_over(run)
    return run


def _samples(config: TrainingConfig, num_items: int) -> bool:
    return 0 < config.negatives < num_items


def _optimizers(model: SRGNN, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """One for everything; or, where a step sees a sample of the items, one of their own that touches no others."""
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    rate, decay = config.learning_rate, config.weight_decay
    if not _samples(config, model.num_items):
        return [kind(model.parameters(), lr=rate, weight_decay=decay, fused=True)]
    encoder = kind(model.encoder.parameters(), lr=rate, weight_decay=decay, fused=True)
    return [torch.optim.SparseAdam([model.embedding], lr=rate), encoder]


def _train_teachers(run: Run, split: Split, epochs: int, output: Path, stopped: list[int]) -> None:
    """Those of this stage that are still to be trained, each as the recipe says, but without validation."""
    while run.teaching:
        for _ in _fit(run, split, epochs, None, output, stopped):
            save_checkpoint(run, output)
        run.teachers.append(_weights(run.model))
        _start_over(run)
        save_checkpoint(run, output)


def _start_over(run: Run) -> None:
    """From first weights, those of the model that is next, with the same schedule."""
    torch.manual_seed(run.seed)
    run.model.zero_grad()
    run.model.reset_parameters()
    run.optimizers = _optimizers(run.model, run.recipe.training)
    run.epoch, run.step, run.loss_sum = 0, 0, 0.0


def _teachers(run: Run) -> Teachers | None:
    """Of the model that is being trained."""
    if run.teaching or not run.teachers:
        return None
    models = [copy.deepcopy(run.model) for _ in run.teachers]
    for model, weights in zip(models, run.teachers, strict=True):
        model.load_state_dict(weights)
    return Teachers(models, run.recipe.training.teacher_share)


def _weights(model: SRGNN) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


@contextmanager
def stop_signal() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying in the middle of an update; a second one is not held back."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
