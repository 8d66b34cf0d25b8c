"""Artifact v3, the contract between training and service. Only this and :mod:`srgnn.directory` know the format.

    NAME/                       immutable; NAME = dataset-date-first 8 hex of the manifest's sha256
      manifest.json             format, version, model config, session rules, file sizes + sha256, provenance, metrics
      model.safetensors         float32: encoder, and the item matrix as it is scored (unit rows under cosine);
                                where the manifest says `trend`, with the items' trends as a last column
      catalogue.safetensors     the item matrix as int8, a scale for every 32 items; checked against the model on load
      fallback.safetensors      training clicks, transitions
      vocabulary.txt            one id a line; line i <-> row i
      probes.json               histories with their expected answer, recomputed before a service says ready
      index.faiss               optional, by `srgnn index`: inverted lists for a catalogue too large to scan
      neighbours.safetensors    optional, by recipes with `training.neighbours`: past sessions, which vote for items
      habits.safetensors        optional, by recipes with `training.habits`: how often visitors go back to what they
                                clicked; how much either counts is `blend` in the manifest
    LATEST                      name of the newest artifact beside it, replaced atomically

Written to a hidden sibling, synced, renamed. Nothing in it is code, nothing is unpickled. Both matrices are used where
they lie in the mapped files, so that any number of processes on a machine share one copy. Two versions are still read:
2 knows no trend; 1 has the embedding before it was normalised, and a scale for every item, so that each process makes
matrices of its own from it.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .ann import IVF
from .blend import NOTHING_BESIDE, Beside, BlendScorer, BlendWeights, Used, model_of
from .catalogue import Catalogue
from .config import SRGNNConfig
from .directory import HABITS, INDEX, NEIGHBOURS, publish, verify
from .errors import ArtifactError, ConfigError, DataError, InputError
from .fallback import Fallback
from .habits import fits
from .loops import FloatArray
from .loops.habits import Habits
from .loops.layout import GROUP
from .neighbours import Neighbours, Weights
from .packed import State, encoder_shapes
from .recommender import Recommender
from .scan import Quantised, num_groups, quantise
from .scorer import Scorer, SRGNNScorer
from .sequence import SessionRules
from .session_index import SessionIndex
from .unit import unit_rows
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .model import SRGNN

FINITE_ROWS_AT_ONCE = 1 << 10
MOST_CLICKS = 1 << 62
"""Of all items together, so that no sum of them overflows."""
PROBES = 16
_Config = TypeVar("_Config", SRGNNConfig, SessionRules, BlendWeights, Weights)

PROBE_TOLERANCE = 1e-4
"""Relative; float32 item vectors differ in the last bits from one kind of processor to the next."""


@dataclass(frozen=True)
class Artifact:
    """A verified artifact, ready to answer."""

    path: Path
    manifest: dict[str, Any]
    recommender: Recommender

    @property
    def name(self) -> str:
        """The directory's name, which is also the model's version."""
        return self.path.name

    @property
    def created(self) -> datetime:
        """When it was made."""
        return datetime.fromisoformat(self.manifest["created"])


def save(
    directory: Path,
    *,
    dataset: str,
    model: "SRGNN",
    rules: SessionRules,
    vocabulary: Vocabulary,
    fallback: Fallback,
    probe_histories: Sequence[Sequence[str]],
    provenance: dict[str, Any],
    metrics: dict[str, Any],
    beside: Beside = NOTHING_BESIDE,
    trend: FloatArray | None = None,
) -> Path:
    """Write a new artifact into ``directory``, point ``LATEST`` at it, return its path. Nothing stays half-written.

    ``trend`` [V] is what ``beside`` weighs, if it does.
    """
    alone = SRGNNScorer.of_model(model, fallback.clicks > 0, trend)

    def write(partial: Path) -> None:
        _write_files(partial, model, alone.catalogue.matrix, vocabulary, fallback)
        if beside.neighbours is not None:
            save_file(_tensors(beside.neighbours.index._asdict()), partial / NEIGHBOURS)
        if beside.habits is not None:
            save_file(_tensors(beside.habits._asdict()), partial / HABITS)
        write_probes(partial, Recommender(vocabulary, rules, beside.scorer(alone), fallback), probe_histories)

    manifest = {
        "dataset": dataset,
        "items": len(vocabulary),
        "model": asdict(model.config),
        "rules": asdict(rules),
        "provenance": provenance,
        "metrics": metrics,
    }
    if beside != NOTHING_BESIDE:
        manifest["blend"] = _blend(beside)
    if trend is not None:
        manifest["trend"] = True
    return publish(directory, manifest, write)


def _blend(beside: Beside) -> dict[str, Any]:
    """How the evidence is weighed, for the manifest; read by :func:`_read_beside`."""
    parts: dict[str, BlendWeights | Weights | None] = {"weights": beside.weights, "habits": beside.habit_weights}
    if beside.neighbours is not None:
        parts["neighbours"] = beside.neighbours.weights
    return {name: asdict(part) for name, part in parts.items() if part is not None}


def _write_files(partial: Path, model: "SRGNN", items: Tensor, vocabulary: Vocabulary, fallback: Fallback) -> None:
    state = {**model.state_dict(), "embedding": items}
    state = {name: tensor.detach().cpu().float().contiguous() for name, tensor in state.items()}
    counts = {name: getattr(fallback, name) for name in ("clicks", "offsets", "next_rows", "next_clicks")}
    save_file(state, partial / "model.safetensors")
    save_file(quantise(items)._asdict(), partial / "catalogue.safetensors")
    save_file(_tensors(counts), partial / "fallback.safetensors")
    vocabulary.write(partial / "vocabulary.txt")


def _tensors(arrays: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def save_with_index(
    directory: Path, old: Artifact, index: IVF, provenance: dict[str, Any], probe_histories: Sequence[Sequence[str]]
) -> Path:
    """Write ``old`` again with an index, which answers its probes; all other files are shared with ``old``."""
    if old.manifest["version"] == 1:  # its items are not stored as they are scored
        raise ArtifactError(f"{old.path} is of format version 1: train it again")
    recommender = old.recommender
    known = model_of(recommender.scorer)
    catalogue = Catalogue(known.catalogue.matrix, known.catalogue.servable, index=index)
    model = SRGNNScorer(known.config, known.encoder, catalogue)
    scorer: Scorer = model
    if isinstance(recommender.scorer, BlendScorer):
        blend = recommender.scorer
        scorer = BlendScorer(model, blend.neighbours, blend.weights, blend.habits)
    indexed = Recommender(recommender.vocabulary, recommender.rules, scorer, recommender.fallback)

    def write(partial: Path) -> None:
        for name in old.manifest["files"]:
            if name not in ("probes.json", INDEX):
                _link(old.path / name, partial / name)
        index.write(partial / INDEX)
        write_probes(partial, indexed, probe_histories)

    manifest = old.manifest | {"provenance": old.manifest["provenance"] | {"index": provenance}}
    return publish(directory, manifest, write)


def _link(file: Path, copy: Path) -> None:
    try:
        copy.hardlink_to(file)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, copy)


def load(path: Path | str, *, exact: bool = False, beside: Used = "all") -> Artifact:
    """Load, check hashes, names and shapes of every tensor, and recompute the probes.

    ``path`` is an artifact, or the folder that holds ``LATEST``. ``exact`` leaves a stored index unused, ``beside``
    what is stored beside the model, and then the probes, which these answered. Raises ArtifactError with the file and
    the remedy.
    """
    path, manifest = verify(path)
    config, rules = _configs(path, manifest)
    vocabulary = _read_vocabulary(path, manifest)
    width = config.hidden_size + (manifest.get("trend") is True)
    encoder, items = _read_model(path, config, rules, (len(vocabulary), width))
    if manifest["version"] == 1:
        items = unit_rows(items) if config.scoring == "cosine" else items
        quantised = quantise(items)
    else:
        quantised = _read_quantised(path, items)
    fallback = _read_fallback(path, len(vocabulary))
    servable = fallback.clicks > 0
    indexed = INDEX in manifest["files"] and not exact
    index = IVF.read(path / INDEX, servable, items.shape[1]) if indexed else None
    catalogue = Catalogue(items, torch.from_numpy(servable), quantised, index)
    model = SRGNNScorer(config, encoder, catalogue)
    model.make_ready(fallback.popular)
    scorer = _read_beside(path, manifest, len(vocabulary)).scorer(model, beside)
    recommender = Recommender(vocabulary, rules, scorer, fallback, path.name)
    if beside == "all" and not (exact and INDEX in manifest["files"]):
        _check_probes(path, recommender)
    return Artifact(path, manifest, recommender)


def _configs(path: Path, manifest: dict[str, Any]) -> tuple[SRGNNConfig, SessionRules]:
    try:
        return _checked(SRGNNConfig(**manifest["model"])), _checked(SessionRules(**manifest["rules"]))
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{path / 'manifest.json'}: model or rules are not usable: {error}") from error


def _checked(config: _Config) -> _Config:
    """Raise TypeError where a value is not of its default's type; a float may be written as a whole number."""
    for field in fields(config):
        value, expected = getattr(config, field.name), type(field.default)
        if type(value) is not expected and not (expected is float and type(value) is int):
            raise TypeError(f"{field.name} is {value!r}, expected {expected.__name__}")
    return config


def _read_vocabulary(path: Path, manifest: dict[str, Any]) -> Vocabulary:
    try:
        vocabulary = Vocabulary.read(path / "vocabulary.txt")
    except DataError as error:
        raise ArtifactError(str(error)) from error
    if len(vocabulary) != manifest.get("items"):
        raise ArtifactError(
            f"{path / 'vocabulary.txt'} has {len(vocabulary)} ids, the manifest says {manifest.get('items')}"
        )
    return vocabulary


def _read_model(
    path: Path, config: SRGNNConfig, rules: SessionRules, embedding_shape: tuple[int, int]
) -> tuple[State, Tensor]:
    """The encoder's parameters, and the stored embedding [V, D]."""
    shapes = {f"encoder.{name}": shape for name, shape in encoder_shapes(config, rules.max_length).items()}
    shapes["embedding"] = embedding_shape
    expected = {name: (shape, torch.float32) for name, shape in shapes.items()}
    tensors = _read_tensors(path / "model.safetensors", expected)
    for name, tensor in tensors.items():
        if not all(bool(rows.isfinite().all()) for rows in torch.split(tensor, FINITE_ROWS_AT_ONCE)):
            raise ArtifactError(
                f"{path / 'model.safetensors'}: {name} holds values that are not finite: train it again"
            )
    embedding = tensors.pop("embedding")
    return {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()}, embedding


def _read_quantised(path: Path, items: Tensor) -> Quantised:
    """The stored int8 matrix; it must be the model's own, each entry within half a scale."""
    file = path / "catalogue.safetensors"
    groups, width = num_groups(len(items)), items.shape[1]
    expected = {"items": ((groups * GROUP, width), torch.int8), "scales": ((groups,), torch.float32)}
    quantised = Quantised(**_read_tensors(file, expected))
    if not quantised.belongs_to(items):
        raise ArtifactError(f"{file} does not belong to model.safetensors: train or copy the artifact again")
    return quantised


def _read_fallback(path: Path, num_items: int) -> Fallback:
    file = path / "fallback.safetensors"
    tensors = _read_tensors(file, None)
    if set(tensors) != {"clicks", "offsets", "next_rows", "next_clicks"} or any(
        tensor.dtype != torch.int64 or tensor.dim() != 1 for tensor in tensors.values()
    ):
        raise ArtifactError(
            f"{file} holds {sorted(tensors)}: expected int64 vectors clicks, offsets, next_rows, next_clicks"
        )
    clicks, offsets, rows, counts = (
        tensors[name].numpy() for name in ("clicks", "offsets", "next_rows", "next_clicks")
    )
    fits = (
        len(clicks) == num_items
        and len(offsets) == num_items + 1
        and len(rows) == len(counts) == offsets[-1]
        and offsets[0] == 0
        and bool((np.diff(offsets) >= 0).all())
        and bool(((rows >= 0) & (rows < num_items)).all())
        and bool((clicks >= 0).all() and (counts > 0).all())
        and max(clicks.sum(dtype=float), counts.sum(dtype=float)) < MOST_CLICKS
    )
    if not fits:
        raise ArtifactError(f"{file} does not fit a catalogue of {num_items} items: train or copy the artifact again")
    return Fallback(clicks, offsets, rows, counts)


def _read_beside(path: Path, manifest: dict[str, Any], num_items: int) -> Beside:
    """What there is beside the model, and what it counts."""
    blend: Any = manifest.get("blend")
    found = NOTHING_BESIDE
    try:
        if NEIGHBOURS in manifest["files"]:
            how = _checked(Weights(**blend["neighbours"]))
            neighbours = Neighbours(_read_sessions(path / NEIGHBOURS, num_items), how)
            found = found._replace(neighbours=neighbours, weights=_checked(BlendWeights(**blend["weights"])))
        if HABITS in manifest["files"]:
            weights = _checked(BlendWeights(**blend["habits"]))
            found = found._replace(habits=_read_habits(path / HABITS), habit_weights=weights)
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{path / 'manifest.json'}: blend is not usable: {error}") from error
    return found


def _read_sessions(file: Path, num_items: int) -> SessionIndex:
    tensors = _read_tensors(file, None)
    if set(tensors) != set(SessionIndex._fields) or any(
        tensor.dtype != torch.int32 or tensor.dim() != 1 or not len(tensor) for tensor in tensors.values()
    ):
        raise ArtifactError(f"{file} holds {sorted(tensors)}: expected int32 vectors {', '.join(SessionIndex._fields)}")
    index = SessionIndex(**{name: tensor.numpy() for name, tensor in tensors.items()})
    if not index.fits(num_items):
        raise ArtifactError(f"{file} does not fit a catalogue of {num_items} items: train or copy it again")
    return index


def _read_habits(file: Path) -> Habits:
    tensors = _read_tensors(file, None)
    types = {"older": torch.int32, "odds": torch.float32}
    if {name: tensor.dtype for name, tensor in tensors.items()} != types or any(
        tensor.dim() != 2 for tensor in tensors.values()
    ):
        raise ArtifactError(f"{file} holds {sorted(tensors)}: expected matrices older (int32) and odds (float32)")
    habits = Habits(**{name: tensor.numpy() for name, tensor in tensors.items()})
    if not fits(habits):
        raise ArtifactError(f"{file} is no tree of shapes: train or copy the artifact again")
    return habits


def _read_tensors(file: Path, expected: dict[str, tuple[tuple[int, ...], torch.dtype]] | None) -> dict[str, Tensor]:
    """All tensors of a file; their names, shapes and types must be ``expected`` where it is given."""
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}") from error
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    if expected is not None and found != expected:
        name = min(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise ArtifactError(
            f"{file}: tensor {name!r} is {found.get(name, 'missing')}, the manifest's model needs "
            f"{expected.get(name, 'no such tensor')}: the files are of different models"
        )
    return tensors


def write_probes(folder: Path, recommender: Recommender, histories: Sequence[Sequence[str]]) -> None:
    """Up to 16 histories and, always, the empty one, with today's answers, into ``probes.json``."""
    asked = [list(history) for history in histories[: PROBES - 1]] + [[]]
    answers = recommender.recommend(asked, _probe_k(recommender))
    probes = [
        {"history": history, "item_ids": answer.item_ids, "scores": answer.scores, "source": answer.source}
        for history, answer in zip(asked, answers, strict=True)
    ]
    (folder / "probes.json").write_text(json.dumps(probes, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def probe_histories(path: Path) -> list[list[str]]:
    """The histories of a loaded artifact's probes."""
    probes = json.loads((path / "probes.json").read_text(encoding="utf-8"))
    return [probe["history"] for probe in probes]


def _probe_k(recommender: Recommender) -> int:
    return min(20, len(recommender.vocabulary))


def _check_probes(path: Path, recommender: Recommender) -> None:
    """Recompute every probe; an answer that differs means other numerics, other code or another model."""
    file = path / "probes.json"
    try:
        probes = orjson.loads(file.read_bytes())
        answers = recommender.recommend([probe["history"] for probe in probes], _probe_k(recommender))
        for i, (probe, answer) in enumerate(zip(probes, answers, strict=True)):
            same = probe["item_ids"] == answer.item_ids and probe["source"] == answer.source
            if not same or not np.allclose(probe["scores"], answer.scores, rtol=PROBE_TOLERANCE, atol=PROBE_TOLERANCE):
                raise ArtifactError(f"{file}: probe {i} is answered differently here than where it was trained")
    except (ValueError, TypeError, KeyError, InputError) as error:
        raise ArtifactError(f"{file} is not usable: {error!r}") from error
    if not probes:
        raise ArtifactError(f"{file} holds no probes: train the artifact again")
