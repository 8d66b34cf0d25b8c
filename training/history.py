"""What an artifact's manifest says about its training, as far as a report tells it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from srgnn.artifact import Artifact
from srgnn.errors import ArtifactError


class Epoch(NamedTuple):
    """One epoch; Recall@20 and MRR@20 are those on the validation split, None where there was none."""

    number: int
    loss: float
    recall: float | None
    mrr: float | None
    seconds: float | None


class History(NamedTuple):
    """How an artifact was made. ``recipe`` and ``provenance`` are texts by dotted name."""

    artifact: str
    epochs: tuple[Epoch, ...]
    chosen: int | None
    """Number of the epoch whose weights the artifact has, where it is among the epochs."""
    recipe: Mapping[str, str]
    provenance: Mapping[str, str]


def read_history(artifact: Artifact) -> History:
    """From the manifest; what it lacks is empty. Raises ArtifactError where it holds something else."""
    try:
        figures = dict(artifact.manifest.get("metrics", {}))
        provenance = dict(artifact.manifest.get("provenance", {}))
        epochs = tuple(_epoch(record) for record in figures.get("history", []))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"the manifest of {artifact.path} holds no training history as srgnn train writes it ({error!r}): expected "
            "epochs, each with a finite loss. Evaluate it without --report, or train it again"
        ) from error
    chosen = figures.get("epoch")
    return History(
        artifact.name,
        epochs,
        chosen if chosen in [epoch.number for epoch in epochs] else None,
        dict(_leaves(provenance.pop("recipe", {}))),
        dict(_leaves(provenance)),
    )


def _epoch(record: Mapping[str, Any]) -> Epoch:
    recall, mrr, seconds = (
        _finite(record[name]) if name in record else None for name in ("recall@20", "mrr@20", "seconds")
    )
    return Epoch(int(record["epoch"]), _finite(record["loss"]), recall, mrr, seconds)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not finite")
    return number


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every value below nested mappings, as text, by its dotted name."""
    if not isinstance(value, Mapping):
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return
    for key, below in value.items():
        yield from _leaves(below, f"{name}.{key}" if name else str(key))
