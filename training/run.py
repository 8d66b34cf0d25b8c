"""The state of a training, and how it gets into a checkpoint and out again.

Tensors of the checkpoint are named ``model.*``, ``best.*``, ``teacher.<which>.*``, ``optimizer.<which>.<parameter>.*``
and ``random.*``; the rest of a Run is JSON. The file itself is the matter of :mod:`.checkpoint`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from srgnn.errors import ConfigError
from srgnn.model import SRGNN

from . import checkpoint
from .config import Recipe
from .teachers import teacher_seed

BOOKED = ("stage", "epoch", "step", "loss_sum", "seconds", "seconds_before", "history", "blend", "blended")
"""Of a Run, what a checkpoint holds as JSON."""


@dataclass
class Run:
    """A training in progress: what a checkpoint holds."""

    recipe: Recipe
    model: SRGNN
    optimizers: list[torch.optim.Optimizer]
    corpus_id: str
    stage: Literal["select", "refit"] = "select"
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    seconds_before: float = 0.0
    """When the last epoch was over."""
    history: list[dict[str, float]] = field(default_factory=list)
    teachers: list[dict[str, Tensor]] = field(default_factory=list)
    """Weights of those that have learnt this stage's examples."""
    best: dict[str, Tensor] = field(default_factory=dict)
    blend: dict[str, dict[str, float]] = field(default_factory=dict)
    """Weights of the evidence beside the model: with ``habits``, with ``neighbours`` (and habits)."""
    blended: dict[str, dict[str, float]] = field(default_factory=dict)
    """Validation figures with each."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.embedding.device

    @property
    def teaching(self) -> bool:
        """Whether the model that is being trained is one of the teachers."""
        return len(self.teachers) < self.recipe.training.teachers

    @property
    def seed(self) -> int:
        """Of the model that is being trained."""
        seed = self.recipe.training.seed
        return teacher_seed(seed, len(self.teachers)) if self.teaching else seed

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) with the best validation score; the last one where nothing was validated."""
        scores = [record.get("score", record["epoch"]) for record in self.history]
        return int(np.argmax(scores)) + 1 if scores else 0

    @property
    def selected(self) -> dict[str, float]:
        """Validation figures of the best epoch, if there are any."""
        record = self.history[self.best_epoch - 1]
        return {name: record[name] for name in ("recall@20", "mrr@20") if name in record}


def save_checkpoint(run: Run, output: Path) -> None:
    """Write a Run down in ``output``, with the state of torch's random numbers; :func:`restore` goes on from there."""
    tensors = {f"model.{name}": tensor for name, tensor in run.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in run.best.items()}
    for i, weights in enumerate(run.teachers):
        tensors |= {f"teacher.{i}.{name}": tensor for name, tensor in weights.items()}
    for i, optimizer in enumerate(run.optimizers):
        for number, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{number}.{name}": torch.as_tensor(value) for name, value in values.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if run.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    state = {name: getattr(run, name) for name in BOOKED}
    state |= {"teachers": len(run.teachers), "recipe": run.recipe.as_dict(), "corpus": run.corpus_id}
    checkpoint.save(output, tensors, state)


def restore(run: Run, saved: checkpoint.Checkpoint) -> None:
    """Put a checkpoint into a new Run. Raises ConfigError where recipe or corpus are other ones."""
    if saved.state["corpus"] != run.corpus_id:
        raise ConfigError("the checkpoint was made on another corpus: give that one, or train without --resume")
    changed = _first_change(saved.state["recipe"], run.recipe.as_dict())
    if changed:
        raise ConfigError(f"the checkpoint was made with another recipe: {changed}. Use that, or delete the checkpoint")
    run.model.load_state_dict(_under("model.", saved.tensors))
    run.best = _under("best.", saved.tensors)
    run.teachers = [_under(f"teacher.{i}.", saved.tensors) for i in range(saved.state["teachers"])]
    for i, optimizer in enumerate(run.optimizers):
        _restore_optimizer(optimizer, _under(f"optimizer.{i}.", saved.tensors))
    torch.set_rng_state(saved.tensors["random.cpu"])
    if run.device.type == "cuda" and "random.cuda" in saved.tensors:
        torch.cuda.set_rng_state(saved.tensors["random.cuda"])
    for name in BOOKED:
        setattr(run, name, saved.state[name])


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    slots: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        whole = not tensor.is_floating_point()  # SparseAdam counts its steps with a plain number
        slots.setdefault(int(number), {})[name] = tensor.item() if whole else tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _first_change(before: dict[str, Any], now: dict[str, Any]) -> str:
    for section in ("rules", "model", "training"):
        for name, value in now[section].items():
            if before[section].get(name) != value:
                return f"{section}.{name} was {before[section].get(name)!r} and is now {value!r}"
    return ""
