"""Clicks from Redis to Parquet files: out of Redis at least once, in the files exactly once.

A batch is read, cleaned, written as one file, and only then removed from Redis. Where the exporter is killed on the
way, the batch is still pending in Redis: the next one reads it again, and leaves out what a file holds already.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from redis.exceptions import RedisError

from srgnn.errors import DataError, StoreUnavailable

from .files import ClickFiles
from .queue import POLL_SECONDS, ClickQueue, Entry, StreamId, missing

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 10.0


@dataclass
class Counts:
    """What was done with the entries of one batch, or of all."""

    files: int = 0
    clicks: int = 0
    """Rows written; some may have been forgotten since."""
    duplicates: int = 0
    """Clicks left out: their session had the same event id in the batch, or in a file of the last hour."""
    already_written: int = 0
    """Clicks read again after an exporter died, or Redis fell back."""
    malformed: int = 0
    """Entries that are not of the contract; they are left out."""
    forgotten_sessions: int = 0
    forgotten_clicks: int = 0
    """Clicks left out, or taken out of older files, because their session was forgotten after them."""

    def add(self, other: "Counts") -> None:
        """Add up."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


class Exporter:
    """Moves clicks from ``queue`` to ``files``: so many entries a file, or what came in ``seconds``."""

    def __init__(self, queue: ClickQueue, files: ClickFiles, *, entries: int, seconds: float) -> None:
        self._queue = queue
        self._files = files
        self._entries = entries
        self._seconds = seconds
        self._counts = Counts()

    def drain(self, stopping: Callable[[], bool]) -> None:
        """Export what is there. Raises StoreUnavailable where Redis fails, DataError where the disk does."""
        try:
            while self._export_next(once=True, stopping=stopping):
                pass
        except RedisError as error:
            raise StoreUnavailable(f"{self._queue.name} failed: {error}. Nothing is lost: run this again") from error
        except OSError as error:
            raise DataError(
                f"cannot write to {self._files.folder}: {error}. Nothing is lost: run this again"
            ) from error

    def follow(self, stopping: Callable[[], bool]) -> None:
        """Export what comes until ``stopping``, through failures of Redis and of the disk."""
        failures = 0
        self._files.beat()
        while not stopping():
            try:
                if failures:
                    self._queue.open()
                if not self._export_next(once=False, stopping=stopping):
                    time.sleep(POLL_SECONDS)
                self._files.beat()
                failures = 0
            except (RedisError, OSError) as error:
                failures += 1
                fields = {"cause": str(error) or type(error).__name__, "failures": failures}
                logger.warning("export failed, trying again", extra={"fields": fields})
                _pause(min(LONGEST_PAUSE_SECONDS, 0.1 * 2**failures), stopping)

    def result(self) -> dict[str, Any]:
        """What was done so far; ``lost`` are entries that Redis dropped before they were read."""
        return {**asdict(self._counts), "lost": self._queue.lost}

    def _export_next(self, *, once: bool, stopping: Callable[[], bool]) -> bool:
        """False where there was nothing."""
        entries = self._queue.collect(self._entries, self._seconds, once=once, stopping=stopping)
        if entries:
            self._export(entries)
        return bool(entries)

    def _export(self, entries: list[Entry]) -> None:
        written = self._files.written([entry.id for entry in entries])
        lost, _ = missing(entries, self._queue.number, written)
        forgotten = {entry.session: entry.id for entry in entries if entry.kind == "forget"}
        erased = self._files.forget(forgotten)
        clicks = [entry for entry in entries if entry.kind == "click" and entry.id not in written]
        kept = [click for click in clicks if not _is_forgotten(click, forgotten)]
        new = list(without_repeats(kept, self._files.events(kept)))
        counts = Counts(
            files=int(bool(new)),
            clicks=len(new),
            duplicates=len(kept) - len(new),
            already_written=len(written),
            malformed=sum(entry.kind == "malformed" for entry in entries),
            forgotten_sessions=len(forgotten),
            forgotten_clicks=len(clicks) - len(kept) + erased,
        )
        summary = {**asdict(counts), "lost": lost}
        if new:
            summary["file"] = self._files.write(new, summary).name
        self._counts.add(counts)
        self._queue.commit(entries, written)
        logger.log(logging.WARNING if lost else logging.INFO, "exported", extra={"fields": summary})


def without_repeats(clicks: Iterable[Entry], seen: set[tuple[str, str]]) -> Iterable[Entry]:
    """Leave out clicks whose session had their event id before: among ``seen``, (session, event), or these."""
    for click in clicks:
        event = (click.session, click.event)
        if click.event and event in seen:
            continue
        seen.add(event)
        yield click


def _is_forgotten(click: Entry, forgotten: Mapping[str, StreamId]) -> bool:
    return click.session in forgotten and click.id < forgotten[click.session]


def _pause(seconds: float, stopping: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not stopping() and time.monotonic() < until:
        time.sleep(0.1)
