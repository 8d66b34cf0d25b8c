"""An artifact as a directory of files: its name, its hashes, ``LATEST``. What is in the files is for
:mod:`srgnn.artifact`; nothing here needs torch.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .atomic import hidden_beside, put_in_place, replaced_when_whole
from .errors import ArtifactError, ConfigError

FORMAT = "srgnn-artifact"
VERSION = 3
READABLE_VERSIONS = (1, 2, 3)
FILES = (
    "model.safetensors",
    "catalogue.safetensors",
    "fallback.safetensors",
    "vocabulary.txt",
    "probes.json",
)
INDEX = "index.faiss"
"""Optional; read by :mod:`srgnn.ann`."""
NEIGHBOURS = "neighbours.safetensors"
"""Optional; the manifest's entry ``blend`` then says how they are weighed."""
HABITS = "habits.safetensors"
"""Optional; as with neighbours."""
OPTIONAL_FILES = (INDEX, NEIGHBOURS, HABITS)
MAX_MANIFEST_BYTES = 16 << 20
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""Of an artifact; never a path, never hidden."""


def publish(directory: Path, manifest: dict[str, Any], write: Callable[[Path], None]) -> Path:
    """Make an artifact of the files that ``write`` puts into an empty folder, and point ``LATEST`` at it; its path.

    ``manifest`` holds dataset, items, model, rules, provenance, metrics and, with neighbours or habits, blend.
    """
    check_dataset_name(manifest["dataset"])
    directory.mkdir(parents=True, exist_ok=True)
    partial = hidden_beside(directory / manifest["dataset"])
    partial.mkdir()
    try:
        write(partial)
        path = directory / _seal(partial, manifest)
        put_in_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    with replaced_when_whole(directory / "LATEST") as pointer:
        pointer.write_text(f"{path.name}\n", encoding="utf-8")
    return path


def _seal(partial: Path, manifest: dict[str, Any]) -> str:
    """Write the manifest over all files of ``partial``; the name that fits it."""
    now = datetime.now(UTC)
    files = (*FILES, *(name for name in OPTIONAL_FILES if (partial / name).exists()))
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "dataset": manifest["dataset"],
        "created": now.isoformat(timespec="seconds"),
        "items": manifest["items"],
        "model": manifest["model"],
        "rules": manifest["rules"],
        **{name: manifest[name] for name in ("blend", "trend") if name in manifest},
        "files": {name: fingerprint(partial / name) for name in files},
        "provenance": manifest["provenance"],
        "metrics": manifest["metrics"],
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (partial / "manifest.json").write_text(text, encoding="utf-8")
    return f"{manifest['dataset']}-{now:%Y%m%d}-{_sha256(partial / 'manifest.json')[:8]}"


def check_dataset_name(name: str) -> None:
    """Raise ConfigError unless an artifact's directory can be named after the data set."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ConfigError(
            f"dataset name is {name!r}: expected 1 to 64 letters, digits, '-' and '_'; it names the artifact. "
            "A recipe is named after its file: rename that"
        )


def verify(path: Path | str) -> tuple[Path, dict[str, Any]]:
    """Resolve ``LATEST``, check format, version and the hash of every file; the artifact's path and manifest."""
    path = resolve(Path(path))
    manifest = _read_manifest(path)
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) - set(OPTIONAL_FILES) != set(FILES):
        raise ArtifactError(
            f"{path / 'manifest.json'} lists other files than {', '.join(FILES)} and, as an option, "
            f"{', '.join(OPTIONAL_FILES)}: train or copy it again"
        )
    if bool({NEIGHBOURS, HABITS} & set(files)) != ("blend" in manifest):
        raise ArtifactError(
            f"{path / 'manifest.json'} has {NEIGHBOURS} or {HABITS} without the entry blend, or it without them: train "
            "or copy it again"
        )
    for name, expected in files.items():
        if not (path / name).is_file():
            raise ArtifactError(f"{path / name} is missing: copy the whole artifact again")
        found = fingerprint(path / name)
        if found != expected:
            raise ArtifactError(
                f"{path / name} is damaged: found {found['bytes']} bytes with sha256 {found['sha256'][:12]}..., "
                f"the manifest says {expected}: copy the artifact again"
            )
    return path, manifest


def resolve(path: Path) -> Path:
    """The artifact meant by ``path``: itself, or what ``LATEST`` inside it names."""
    if holds_artifact(path):
        return path.resolve()
    pointer = path / "LATEST"
    if not pointer.is_file():
        raise ArtifactError(
            f"{path} holds neither manifest.json nor LATEST: give an artifact, or train one with `srgnn train`"
        )
    try:
        return artifact_named(path, pointer.read_text(encoding="utf-8", errors="replace").strip())
    except ArtifactError as error:
        raise ArtifactError(f"{pointer} names no artifact: {error}") from error


def holds_artifact(path: Path) -> bool:
    """Whether ``path`` is an artifact, as far as its looks go."""
    return (path / "manifest.json").is_file()


def artifact_named(folder: Path, name: str) -> Path:
    """The artifact of that name in ``folder``. Raises ArtifactError, also where the name is a path."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ArtifactError(f"found {name[:80]!r}, expected the name of a directory in {folder}")
    if not holds_artifact(folder / name):
        raise ArtifactError(f"{folder / name / 'manifest.json'} does not exist")
    return (folder / name).resolve()


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / "manifest.json"
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{file} has {file.stat().st_size} bytes: expected at most {MAX_MANIFEST_BYTES}")
    digest = _sha256(file)[:8]
    if not path.name.endswith(f"-{digest}"):
        raise ArtifactError(
            f"{file} hashes to {digest}, its directory is named {path.name!r}: damaged or renamed, copy it again under "
            "its own name"
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{file} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{file} is no manifest of an {FORMAT}")
    if manifest.get("version") not in READABLE_VERSIONS:
        raise ArtifactError(
            f"{file} is version {manifest.get('version')!r} and this srgnn reads versions "
            f"{', '.join(map(str, READABLE_VERSIONS))}: upgrade srgnn, or train the model again"
        )
    try:
        datetime.fromisoformat(manifest["created"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{file} does not say when it was created: {error!r}") from error
    return manifest


def fingerprint(file: Path) -> dict[str, Any]:
    """Size and sha256, as a manifest lists its files."""
    return {"bytes": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
