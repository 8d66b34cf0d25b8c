"""A prepared corpus: sessions as catalogue rows in flat, memory-mapped arrays, with a manifest.

    corpus/
      manifest.json                       format, version, counts, recipe, size and sha256 of every file
      vocabulary.txt                      one item id a line; line i <-> row i
      {train,validation,test}.items.npy   int32 [C] catalogue rows, session after session
      {train,validation,test}.offsets.npy int64 [S+1] session i is items[offsets[i]:offsets[i+1]]
      {train,validation,test}.times.npy   int64 [C] ms since 1970; the session's index where there is no clock

Sessions are sorted by (time of the first click, session id), clicks by (time, position in the log). A log prepared in
several windows is a folder of such corpora: window-1, window-2 and so on.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from srgnn.atomic import hidden_beside, put_in_place, sync
from srgnn.directory import fingerprint
from srgnn.errors import DataError
from srgnn.vocabulary import Vocabulary

FORMAT = "srgnn-corpus"
VERSION = 1
SPLITS = ("train", "validation", "test")
DTYPES: dict[str, npt.DTypeLike] = {"items": np.int32, "offsets": np.int64, "times": np.int64}
MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.txt"
WINDOW_FOLDER = "window-{}"

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """S sessions of C clicks. items int32 [C], offsets int64 [S+1], times int64 [C]."""

    items: Int32Array
    offsets: Int64Array
    times: Int64Array

    @property
    def num_sessions(self) -> int:
        """S."""
        return len(self.offsets) - 1

    @property
    def num_clicks(self) -> int:
        """C."""
        return len(self.items)

    @property
    def num_examples(self) -> int:
        """Every click of a session but its first is the target of one example."""
        return self.num_clicks - self.num_sessions

    def session(self, index: int) -> Int64Array:
        """Catalogue rows of one session, oldest click first: int64 [n]."""
        return self.items[self.offsets[index] : self.offsets[index + 1]].astype(np.int64)


def concatenate(first: Split, second: Split) -> Split:
    """The sessions of ``first``, then those of ``second``."""
    return Split(
        np.concatenate([first.items, second.items]),
        np.concatenate([first.offsets, second.offsets[1:] + first.offsets[-1]]),
        np.concatenate([first.times, second.times]),
    )


@dataclass(frozen=True)
class Corpus:
    """An opened corpus; its arrays are read-only and stay on disk until they are touched."""

    path: Path
    manifest: dict[str, Any]
    train: Split
    validation: Split
    test: Split

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The V item ids; row i is line i."""
        return Vocabulary.read(self.path / VOCABULARY)

    @cached_property
    def fingerprint(self) -> str:
        """Says whether two corpora hold the same sessions and ids: sha256 over the hashes of all files."""
        hashes = {name: entry["sha256"] for name, entry in self.manifest["files"].items()}
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a corpus that `CorpusWriter` wrote.

        Raises DataError where there is none, where another version wrote it, or where a file is damaged.
        """
        path = Path(path)
        manifest = read_manifest(path)
        for name, expected in manifest["files"].items():
            _require_size(path / name, expected["bytes"])
        return cls(path, manifest, **{name: _read_split(path, name) for name in SPLITS})


class CorpusWriter:
    """Writes a corpus beside its final place and moves it there when it is complete: all of it or nothing.

        with CorpusWriter(path) as writer:
            writer.write_split("train", lengths, blocks)    # and validation, and test
            writer.commit(vocabulary, manifest)

    Raises DataError at once where `path` holds something that is not a corpus; an older corpus is replaced.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()

    def __enter__(self) -> Self:
        self._partial = _make_partial(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def write_split(
        self, name: str, lengths: Int64Array, blocks: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]
    ) -> None:
        """Write one split: clicks per session, int64 [S], and (items, times) of all clicks in blocks."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        np.save(self._partial / f"{name}.offsets.npy", offsets, allow_pickle=False)
        items, times = (
            self._create(name, "items", int(offsets[-1])),
            self._create(name, "times", int(offsets[-1])),
        )
        end = 0
        for block_items, block_times in blocks:
            start, end = end, end + len(np.atleast_1d(block_items))
            items[start:end], times[start:end] = block_items, block_times
        if end != len(items):
            raise DataError(f"split {name}: sessions hold {len(items)} clicks, but {end} were written")

    def commit(self, vocabulary: Vocabulary, manifest: Mapping[str, Any]) -> None:
        """Write vocabulary and manifest, then put the corpus in its place."""
        vocabulary.write(self._partial / VOCABULARY)
        files = {file.name: fingerprint(file) for file in sorted(self._partial.iterdir())}
        head = {"format": FORMAT, "version": VERSION, "files": files}
        text = json.dumps({**head, **manifest, **head}, indent=2, ensure_ascii=False, allow_nan=False)
        (self._partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
        _move_into_place(self._partial, self.path)

    def _create(self, name: str, field: str, length: int) -> npt.NDArray[Any]:
        path = self._partial / f"{name}.{field}.npy"
        return np.lib.format.open_memmap(path, mode="w+", dtype=DTYPES[field], shape=(length,))


@contextmanager
def replaced_when_complete(path: Path) -> Iterator[Path]:
    """A folder beside `path` for several corpora, which takes the place of `path` when the block ends well.

    Raises DataError at once where `path` holds something else than corpora.
    """
    path = path.resolve()
    partial = _make_partial(path)
    try:
        yield partial
        _move_into_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_corpus(
    path: str | Path,
    vocabulary: Vocabulary,
    train: Split,
    validation: Split,
    test: Split,
    manifest: Mapping[str, Any],
) -> Corpus:
    """Write a corpus that is already in memory and open it."""
    with CorpusWriter(path) as writer:
        for name, split in zip(SPLITS, (train, validation, test), strict=True):
            writer.write_split(name, np.diff(split.offsets), [(split.items, split.times)])
        writer.commit(vocabulary, manifest)
    return Corpus.open(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the corpus in `path`. Raises DataError where it cannot be read by this version."""
    file = path / MANIFEST
    if not file.is_file() and _holds_windows(path):
        raise DataError(f"{path} holds a corpus for each window of a log: give one of them, such as {path}/window-1")
    if not file.is_file():
        _require_none_retired(path)
        raise DataError(
            f"{path} holds no corpus ({MANIFEST} is missing): make one with `srgnn prepare --output {path}`"
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is damaged ({error}): prepare the corpus again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{file} is not the manifest of a corpus: expected format '{FORMAT}'")
    if manifest.get("version") != VERSION:
        raise DataError(
            f"{path} is a corpus of version {manifest.get('version')!r}, this program reads version "
            f"{VERSION}: prepare it again from the click log"
        )
    missing = {f"{name}.{field}.npy" for name in SPLITS for field in DTYPES} | {VOCABULARY}
    missing -= set(manifest.get("files") or {})
    if missing:
        raise DataError(f"{file} does not list {', '.join(sorted(missing))}: prepare the corpus again")
    return manifest


def require_replaceable(path: Path) -> None:
    """Raise DataError unless `path` is free, an empty directory or what an older preparation wrote (of any version)."""
    if not path.exists():
        return _require_none_retired(path)
    if not path.is_dir():
        raise DataError(f"output {path} is a file: expected a directory that is new, empty or an older corpus")
    if any(path.iterdir()) and not _holds_corpus(path) and not _holds_windows(path):
        raise DataError(
            f"output {path} is not empty and not a corpus, so nothing was written: choose another directory or empty it"
        )


def _require_none_retired(path: Path) -> None:
    """Raise DataError where `path` is free because a preparation was killed after the older corpus had stepped aside.

    Which one is wanted, that or the complete new one beside it, is for the user to say.
    """
    for place in (path.resolve(), path.resolve().parent):  # a window, or the folder of windows
        retired = sorted(place.parent.glob(f".{escape(place.name)}.*.retired")) if not place.exists() else []
        if retired:
            raise DataError(
                f"{place} is gone because a preparation was killed while it replaced it; what was there is in "
                f"{', '.join(map(str, retired))}: take it back with mv {quote(str(retired[-1]))} {quote(str(place))}, "
                "or remove it"
            )


def _holds_corpus(path: Path) -> bool:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def _holds_windows(path: Path) -> bool:
    """Whether `path` is a folder of windows and nothing else."""
    found = set(path.iterdir()) if path.is_dir() else set()
    wanted = {path / WINDOW_FOLDER.format(number) for number in range(1, len(found) + 1)}
    return bool(found) and found == wanted and all(map(_holds_corpus, found))


def _read_split(path: Path, name: str) -> Split:
    arrays = {field: _read_array(path / f"{name}.{field}.npy", dtype) for field, dtype in DTYPES.items()}
    split = Split(**arrays)
    lengths = np.diff(split.offsets)
    sizes_agree = (
        len(split.offsets) > 0 and split.offsets[0] == 0 and split.offsets[-1] == len(split.items) == len(split.times)
    )
    if not sizes_agree or np.any(lengths < 1):
        raise DataError(f"{path / name}.*.npy do not agree with each other: prepare the corpus again")
    return split


def _read_array(file: Path, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{file} is damaged ({error}): prepare the corpus again") from error
    if array.ndim != 1 or array.dtype != dtype:
        found, expected = f"{array.dtype} {list(array.shape)}", f"{np.dtype(dtype)} [n]"
        raise DataError(f"{file} holds {found}, expected {expected}: prepare the corpus again")
    return array


def _require_size(file: Path, expected: int) -> None:
    found = file.stat().st_size if file.is_file() else None
    if found != expected:
        state = "is missing" if found is None else f"has {found} bytes"
        raise DataError(f"{file} {state}, expected {expected} bytes: prepare the corpus again")


def _make_partial(path: Path) -> Path:
    """An empty folder beside `path`, where what may replace `path` is written."""
    require_replaceable(path)
    partial = hidden_beside(path)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"cannot write a corpus to {path}: {error}") from error
    return partial


def _move_into_place(partial: Path, path: Path) -> None:
    """Bring a corpus, or a folder of them, to the disk and then to its place."""
    sync(partial)  # already here, or there would be no corpus at all for as long as the disk takes
    with _stepped_aside(path):
        put_in_place(partial, path)


@contextmanager
def _stepped_aside(path: Path) -> Iterator[None]:
    """Room for another corpus, because a directory cannot be renamed over a full one.

    Afterwards the older one is deleted, or back where nothing took its place.
    """
    retired = hidden_beside(path, "retired")
    if path.exists():
        path.rename(retired)
    try:
        yield
    finally:
        if path.exists():
            shutil.rmtree(retired, ignore_errors=True)
        elif retired.exists():
            retired.rename(path)
