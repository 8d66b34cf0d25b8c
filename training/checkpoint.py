"""The state of an interrupted training, enough to continue bit for bit on CPU; never shipped to the service.

One safetensors file: tensors by name, everything else as JSON in its metadata. Nothing is pickled.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from srgnn.atomic import replaced_when_whole
from srgnn.errors import DataError

VERSION = 2
NAME = "checkpoint.safetensors"


class Checkpoint(NamedTuple):
    """What was saved: tensors by name, and JSON-able state."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(directory: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write the checkpoint of ``directory``, replacing the one before; a crash leaves the old one whole."""
    directory.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replaced_when_whole(directory / NAME) as partial:
        save_file(plain, partial, metadata={"srgnn": json.dumps({"version": VERSION, **state})})
    return directory / NAME


def load(directory: Path) -> Checkpoint:
    """Read what :func:`save` wrote. Raises DataError where there is none or it cannot be used."""
    path = directory / NAME
    if not path.is_file():
        raise DataError(f"{path} does not exist: there is nothing to resume, train without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})["srgnn"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Delete it and train from the start") from error
    if state.pop("version") != VERSION:
        raise DataError(f"{path} is of another version of srgnn: delete it and train from the start")
    return Checkpoint(tensors, state)


def delete(directory: Path) -> None:
    """Remove the checkpoint of a training that ended, and what a kill left of one half written."""
    for file in (directory / NAME, *directory.glob(f".{NAME}.*.partial")):
        file.unlink(missing_ok=True)
