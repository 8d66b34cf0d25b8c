"""Recommend for a file of histories: any number of them in flat memory, the output whole or not there at all.

Chunks of histories are parsed, answered and encoded in this process or, with several workers, in processes that share
the artifact; reading and writing stay here, in order.

Input, by suffix:
  any text    one session a line, ids separated by spaces (the SR-GNN form); an empty line is an empty history
  .parquet    a list column ``items``, oldest click first, and optionally a column ``session``
Output, by suffix, one record per input record and in its order:
  .jsonl      {"session": ..., "items": [{"item_id": ..., "score": ...}], "source": "model"}
  .parquet    the same as columns ``session``, ``items`` (list of structs) and ``source``
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from .atomic import replaced_when_whole
from .catalogue import SESSIONS_AT_ONCE
from .errors import DataError, InputError
from .processes import answer_in_order
from .progress import progress
from .recommender import Recommendation, Recommender
from .vocabulary import check_item_ids

CHUNK_HISTORIES = 2 * SESSIONS_AT_ONCE
MAX_LINE_BYTES = 1 << 20
"""A longer line is not a session but another kind of file, and reading it whole would break flat memory."""

_OTHER_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".gz", ".xz", ".zip", ".zst")
_JSON_LINES = (".jsonl", ".ndjson")


class History(NamedTuple):
    """One input record; ``units`` is its share of the progress bar."""

    session: str | None
    items: list[str]
    units: int


Chunk = Callable[[], list[History]]
"""Of the input, read and not yet parsed. Raises DataError."""
Encode = Callable[[Sequence[History], Sequence[Recommendation]], Any]
"""Answers as what the output's :data:`Write` takes: bytes, or a record batch of Arrow."""
Write = Callable[[Any], object]


class AnsweredChunk(NamedTuple):
    """A chunk ready to be written, and what was counted on the way."""

    encoded: Any
    histories: int
    clicks: int
    unknown_clicks: int
    sources: Counter[str]
    units: int


@dataclass(frozen=True)
class BatchResult:
    """What a batch run did; ``sources`` counts histories by what answered them."""

    histories: int
    clicks: int
    unknown_clicks: int
    """Clicks on items outside the vocabulary, which the model skips."""
    sources: dict[str, int]
    seconds: float
    output: Path

    def to_json(self) -> dict[str, Any]:
        """The last line of ``srgnn recommend``."""
        return {
            "histories": self.histories,
            "clicks": self.clicks,
            "unknown_clicks": self.unknown_clicks,
            "sources": self.sources,
            "seconds": round(self.seconds, 3),
            "histories_per_second": round(self.histories / max(self.seconds, 1e-9), 1),
            "output": str(self.output),
        }


def recommend_file(
    recommender: Recommender,
    source: Path,
    output: Path,
    k: int = 20,
    *,
    artifact: Path | None = None,
    workers: int = 1,
    shown: bool = True,
) -> BatchResult:
    """Answer every history of ``source`` into ``output``; see the module for their forms.

    More than one of ``workers`` needs ``artifact``, where ``recommender`` came from. Raises InputError on paths and
    ``k`` that cannot be used, DataError on content, with its place.
    """
    _check_paths(source, output)
    recommender.recommend([[]], k)  # a bad k is told before anything is written
    started = time.monotonic()
    histories = clicks = unknown = 0
    sources: Counter[str] = Counter()
    answer = partial(answer_chunk, k=k, encode=_encoder(output))
    with progress(_label(source), _size(source), shown=shown) as advance, _writer(output) as write:
        for chunk in answer_in_order(answer, _read(source), recommender, artifact, workers):
            write(chunk.encoded)
            sources.update(chunk.sources)
            histories += chunk.histories
            clicks += chunk.clicks
            unknown += chunk.unknown_clicks
            advance(chunk.units)
    return BatchResult(histories, clicks, unknown, dict(sources), time.monotonic() - started, output)


def answer_chunk(recommender: Recommender, chunk: Chunk, *, k: int, encode: Encode) -> AnsweredChunk:
    """What one process does with one chunk."""
    histories = chunk()
    answers = recommender.recommend([history.items for history in histories], k)
    clicks = [item for history in histories for item in history.items]
    return AnsweredChunk(
        encode(histories, answers),
        len(histories),
        len(clicks),
        len(clicks) - recommender.vocabulary.known(clicks),
        Counter(answer.source for answer in answers),
        sum(history.units for history in histories),
    )


def _check_paths(source: Path, output: Path) -> None:
    if not source.is_file():
        raise InputError(f"input {source} is not a file: give a text file (one session a line) or .parquet")
    if source.suffix in _OTHER_FORMATS:
        raise InputError(
            f"input {source} ends in {source.suffix}: expected plain text, one session a line with ids "
            "separated by spaces, or .parquet with a list column 'items'"
        )
    if output.suffix not in (*_JSON_LINES, ".parquet"):
        raise InputError(f"output {output} ends in {output.suffix!r}: expected .jsonl or .parquet")
    if not output.parent.is_dir():
        raise InputError(f"folder {output.parent} of the output does not exist: create it first")
    if output.is_dir() or (output.exists() and output.samefile(source)):
        raise InputError(f"output {output} is a folder or the input itself: choose another name")


# Reading


def _label(source: Path) -> str:
    return "recommend, histories" if source.suffix == ".parquet" else "recommend, bytes of input"


def _size(source: Path) -> int:
    if source.suffix == ".parquet":
        return int(_open_parquet(source).metadata.num_rows)
    return source.stat().st_size


def _read(source: Path) -> Iterator[Chunk]:
    return _chunks_of_parquet(source) if source.suffix == ".parquet" else _chunks_of_text(source)


def read_text(path: Path) -> Iterator[History]:
    """Histories of a text file, one a line. Raises DataError with the line's number."""
    for chunk in _chunks_of_text(path):
        yield from chunk()


def _chunks_of_text(path: Path) -> Iterator[Chunk]:
    first = 1
    with path.open("rb") as file:
        lines = _lines(file)
        while some := list(itertools.islice(lines, CHUNK_HISTORIES)):
            yield partial(_parse_lines, some, path, first)
            first += len(some)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Up to the first that is too long, and no more of that one than shows it."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        if len(line) > MAX_LINE_BYTES:
            return


def _parse_lines(lines: Sequence[bytes], path: Path, first: int) -> list[History]:
    histories = []
    for number, line in enumerate(lines, first):
        try:
            histories.append(History(None, _parse_line(line), len(line)))
        except InputError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
    return histories


def _parse_line(line: bytes) -> list[str]:
    if len(line) > MAX_LINE_BYTES:
        raise InputError(f"longer than {MAX_LINE_BYTES:,} bytes; expected one session a line")
    try:
        text = line.decode().removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error.reason} at byte {error.start}); convert the file") from error
    items = [item for item in text.split(" ") if item]
    check_item_ids(items)
    return items


def _chunks_of_parquet(path: Path) -> Iterator[Chunk]:
    file, first = _open_parquet(path), 1
    names = file.schema_arrow.names
    if "items" not in names:
        raise DataError(f"{path} has columns {', '.join(names)}: expected a list column 'items' (and 'session')")
    columns = [name for name in ("session", "items") if name in names]
    for batch in file.iter_batches(batch_size=CHUNK_HISTORIES, columns=columns):
        yield partial(_parse_batch, batch, path, first)
        first += batch.num_rows


def _parse_batch(batch: Any, path: Path, first: int) -> list[History]:
    return [_parse_record(record, f"{path}, row {row}") for row, record in enumerate(batch.to_pylist(), first)]


def _parse_record(record: dict[str, Any], where: str) -> History:
    items = record["items"]
    if not isinstance(items, list) or any(not isinstance(item, str | int) for item in items):
        raise DataError(f"{where}: 'items' is {items!r:.80}; expected a list of item ids, none of them null")
    history = [str(item) for item in items]
    try:
        check_item_ids(history)
    except InputError as error:
        raise DataError(f"{where}: {error}") from error
    session = record.get("session")
    return History(None if session is None else str(session), history, 1)


def _open_parquet(path: Path) -> Any:
    parquet = _pyarrow_parquet()
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise InputError(
            "Parquet needs pyarrow, which is missing: pip install 'srgnn[train]', or use text and .jsonl"
        ) from error
    return pyarrow.parquet


# Writing


def _encoder(output: Path) -> Encode:
    return encode_arrow if output.suffix == ".parquet" else encode_json_lines


def _writer(output: Path) -> AbstractContextManager[Write]:
    return _parquet_writer(output) if output.suffix == ".parquet" else _json_lines_writer(output)


def _record(history: History, answer: Recommendation) -> dict[str, Any]:
    items = [{"item_id": item, "score": score} for item, score in zip(answer.item_ids, answer.scores, strict=True)]
    if history.session is None:
        return {"items": items, "source": answer.source}
    return {"session": history.session, "items": items, "source": answer.source}


def encode_json_lines(histories: Sequence[History], answers: Sequence[Recommendation]) -> bytes:
    """One JSON object a line."""
    records = map(_record, histories, answers)
    return b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def encode_arrow(histories: Sequence[History], answers: Sequence[Recommendation]) -> Any:
    """The same as a record batch."""
    import pyarrow

    return pyarrow.RecordBatch.from_pylist(list(map(_record, histories, answers)), schema=_schema())


def _schema() -> Any:
    import pyarrow

    item = pyarrow.struct({"item_id": pyarrow.string(), "score": pyarrow.float64()})
    return pyarrow.schema({"session": pyarrow.string(), "items": pyarrow.list_(item), "source": pyarrow.string()})


@contextmanager
def _json_lines_writer(output: Path) -> Iterator[Write]:
    with replaced_when_whole(output) as partial_output, partial_output.open("wb") as file:
        yield file.write


@contextmanager
def _parquet_writer(output: Path) -> Iterator[Write]:
    parquet = _pyarrow_parquet()
    with replaced_when_whole(output) as partial_output, parquet.ParquetWriter(partial_output, _schema()) as file:
        yield file.write_batch
