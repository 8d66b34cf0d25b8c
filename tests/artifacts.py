"""Small artifacts to swap between."""

import shutil
from pathlib import Path

import numpy as np
import torch

from srgnn import artifact
from srgnn.fallback import Fallback
from srgnn.model import SRGNN, SRGNNConfig
from srgnn.sequence import SessionRules
from srgnn.vocabulary import Vocabulary


def save_model(folder: Path, *, items: int = 30, seed: int = 2, max_length: int = 8) -> Path:
    """An artifact over the items 110, 111, ...: some of those that the tiny one knows, and others. LATEST names it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SRGNN(SRGNNConfig(hidden_size=8), items, max_length).eval()
    vocabulary = Vocabulary([str(110 + row) for row in range(items)])
    return artifact.save(
        folder,
        dataset="other",
        model=model,
        rules=SessionRules(max_length=max_length),
        vocabulary=vocabulary,
        fallback=Fallback.from_sessions(np.arange(items), np.array([0, items]), items),
        probe_histories=[vocabulary.ids[:3], vocabulary.ids[-4:]],
        provenance={},
        metrics={},
    )


def folder_with_two(tiny_artifact: Path, folder: Path) -> tuple[Path, Path]:
    """A new ``folder`` with the tiny artifact, which LATEST names, and another; the paths of both."""
    shutil.copytree(tiny_artifact, folder)
    latest = (folder / "LATEST").read_text()
    other = save_model(folder)
    name_latest(folder, latest)
    return folder / latest.strip(), other


def name_latest(folder: Path, name: str) -> None:
    """As training does."""
    (folder / ".next").write_text(f"{name.strip()}\n")
    (folder / ".next").replace(folder / "LATEST")


def damage(path: Path) -> None:
    """One bit of the model's last weight."""
    with (path / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
