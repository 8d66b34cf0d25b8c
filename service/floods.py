"""A log that no outage floods: a warning that repeats is written once a second, with the number of the others."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import NamedTuple, TextIO

QUIET_SECONDS = 1.0
"""Between two written lines of one kind."""
MAX_KINDS = 256
"""Kinds remembered. Ours are as many as the messages in the code; a library may make up its messages anew each time."""


class _Kind(NamedTuple):
    logger: str
    level: int
    message: str
    """Without its arguments."""
    error: object
    """Type of the exception that is told."""
    set_apart: object
    """``extra={"kind": ...}``, where one message tells of several things."""


@dataclass
class _Seen:
    quiet_until: float
    suppressed: int = 0
    fields: object = None
    """Of the last suppressed line. Not all of it: its exception would keep alive what the request held."""


class CalmHandler(logging.StreamHandler[TextIO]):
    """Writes at most one line a second of each kind, from warnings upwards, and the first of a kind always.

    A line that also stands for suppressed ones has their number as its attribute ``suppressed``. Each is counted once:
    by the next line of its kind, or by a line of its own when the handler is closed.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._kinds: OrderedDict[_Kind, _Seen] = OrderedDict()  # the one written longest ago comes first

    def emit(self, record: logging.LogRecord) -> None:
        """Write or count one record; logging calls this under the handler's lock."""
        if record.levelno < logging.WARNING:
            return super().emit(record)
        kind, now = _kind(record), self._clock()
        seen = self._kinds.get(kind)
        if seen and now < seen.quiet_until:
            seen.suppressed += 1
            seen.fields = getattr(record, "fields", {})
            return
        self._kinds[kind] = _Seen(now + QUIET_SECONDS)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > MAX_KINDS:
            self._forget_oldest()
        if seen and seen.suppressed:
            record.suppressed = seen.suppressed
        super().emit(record)

    def close(self) -> None:
        """Write what was only counted so far."""
        self.acquire()
        try:
            while self._kinds:
                self._forget_oldest()
        finally:
            self.release()
        super().close()

    def _forget_oldest(self) -> None:
        kind, seen = self._kinds.popitem(last=False)
        if seen.suppressed:
            line = logging.LogRecord(kind.logger, kind.level, "", 0, kind.message, (), None)
            line.fields = seen.fields
            line.suppressed = seen.suppressed - 1  # it stands for one itself
            Context().run(super().emit, line)  # not as part of the request that happens to be under way


def _kind(record: logging.LogRecord) -> _Kind:
    error = record.exc_info[0] if record.exc_info else None
    return _Kind(record.name, record.levelno, str(record.msg), error, getattr(record, "kind", None))
