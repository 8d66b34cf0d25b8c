"""The exporter's side of the click stream: entries are read, and removed once they are exported.

Everything here is in small commands: Redis does one at a time, and the service waits for it meanwhile.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal, NamedTuple, Self, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from srgnn.errors import ConfigError

from ..sessions.redis import without_password
from .stream import EXPORT, GROUP, STREAM

CONSUMER = "exporter"
ENTRIES_PER_COMMAND = 250
"""Some 0.3 ms of Redis' time to read as many, 0.6 ms to remove them."""
POLL_SECONDS = 0.5
"""Between two looks at a stream that held less than one command's worth: clicks then come in bundles, at no load."""
TIMEOUT_SECONDS = 5.0
FIRST, NEW = "0-0", ">"

COMMIT = """
if redis.call('HGET', KEYS[2], 'directory') ~= ARGV[1] then return 0 end
redis.call('XACK', KEYS[1], ARGV[2], unpack(ARGV, 4))
redis.call('XDEL', KEYS[1], unpack(ARGV, 4))
redis.call('HSET', KEYS[2], 'number', ARGV[3])
return 1
"""
"""XDEL and not XTRIM MINID: it removes what was exported and nothing else, whatever somebody else has pending. HSET
comes last, because a script that has begun to write is not stopped where Redis is full."""


class StreamId(NamedTuple):
    """Redis' name of an entry; they compare by time."""

    ms: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """``1795543217128-0``."""
        ms, _, sequence = text.partition("-")
        return cls(int(ms), int(sequence))

    def __str__(self) -> str:
        return f"{self.ms}-{self.sequence}"


class Entry(NamedTuple):
    """One entry of the stream. ``gone``: trimmed away after it was read once; ``malformed``: not of the contract."""

    id: StreamId
    kind: Literal["click", "forget", "gone", "malformed"]
    number: int | None = None
    session: str = ""
    item: str = ""
    event: str = ""


class NotBound(RedisError):
    """Redis no longer knows this exporter: it was emptied, or another took over."""


class ClickQueue:
    """Entries in order, each again until it was committed; one exporter at a time.

    ``directory`` is the identity of the folder that clicks go to, ``place`` its name for messages. Redis remembers the
    first that came: another is refused, since each click goes to one of them, and sessions would be torn apart.

    Methods raise RedisError; then :meth:`open` has to be called again.
    """

    def __init__(self, url: str, *, directory: str, place: str) -> None:
        # No retry: a read whose answer was lost is read again from what is pending.
        self._redis = Redis.from_url(
            url,
            socket_connect_timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            decode_responses=True,
            encoding_errors="replace",  # one entry that is not UTF-8 must not hold up all that follow
        )
        self._commit = self._redis.register_script(COMMIT)
        self.name = f"click stream {STREAM} at {without_password(url)}"
        self._directory = directory
        self._place = place
        self._position = FIRST
        self.number = 0
        """Of the last entry committed."""
        self.lost = 0
        """Numbers left out so far."""

    def close(self) -> None:
        """Let go of the connection."""
        self._redis.close()

    def open(self, *, take_over: bool = False) -> None:
        """Begin, or begin again after an error. Raises ConfigError where another directory is bound to this Redis."""
        self._bind(take_over)
        self._adopt(self._consumers())
        self._position = FIRST

    def collect(self, entries: int, seconds: float, *, once: bool, stopping: Callable[[], bool]) -> list[Entry]:
        """The next entries, at most so many, in the order of their ids.

        Where there is one, waits ``seconds`` for others; with ``once`` only takes what is there. Returns what it has
        where Redis fails on the way: Redis may come back without them.
        """
        found: list[Entry] = []
        until = float("inf")
        while len(found) < entries and not stopping():
            again = self._position != NEW
            try:
                more = self._read(min(ENTRIES_PER_COMMAND, entries - len(found)))
            except RedisError:
                self._position = FIRST
                if not found:
                    raise
                break
            if more and not found:
                until = time.monotonic() + seconds
            found += more
            if again or len(more) == ENTRIES_PER_COMMAND:
                continue
            if once or not found or time.monotonic() >= until:
                break
            time.sleep(POLL_SECONDS)
        return sorted(found, key=itemgetter(0))

    def commit(self, entries: Sequence[Entry], written: Collection[StreamId]) -> None:
        """Remove exported entries; ``written`` are those of them that an earlier run exported."""
        for start in range(0, len(entries), ENTRIES_PER_COMMAND):
            chunk = entries[start : start + ENTRIES_PER_COMMAND]
            lost, number = missing(chunk, self.number, written)
            ids = [str(entry.id) for entry in chunk]
            if not self._commit([STREAM, EXPORT], [self._directory, GROUP, number, *ids]):
                raise NotBound(f"Redis no longer binds its clicks to {self._place}")
            self.number = number
            self.lost += lost

    def _bind(self, take_over: bool) -> None:
        # Looked at first: a Redis that is full refuses to set what is set already.
        if take_over or not self._redis.hexists(EXPORT, "directory"):
            if take_over:
                self._redis.hdel(EXPORT, "directory")
            if self._redis.hsetnx(EXPORT, "directory", self._directory):
                self._redis.hset(EXPORT, "place", self._place)
        found = self._redis.hmget(EXPORT, ["directory", "place", "number"])
        directory, place, number = cast("list[str | None]", found)
        if directory != self._directory:
            raise ConfigError(
                f"the clicks of this Redis go to {place}, and each goes to one directory only: export there, or stop "
                f"that exporter and start this one once with --take-over"
            )
        self.number = int(number or 0)

    def _consumers(self) -> dict[str, int]:
        """Who has entries pending, and how many."""
        try:
            pending: Any = self._redis.xpending(STREAM, GROUP)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._redis.xgroup_create(STREAM, GROUP, id=FIRST, mkstream=True)
            return {}
        return {consumer["name"]: consumer["pending"] for consumer in pending["consumers"]}

    def _adopt(self, consumers: Iterable[str]) -> None:
        """Whatever somebody read by another name is pending for this exporter from now on."""
        for name in consumers:
            while name != CONSUMER and (ids := self._pending_of(name)):
                self._redis.xclaim(STREAM, GROUP, CONSUMER, 0, ids, justid=True)

    def _pending_of(self, name: str) -> Any:
        found: Any = self._redis.xpending_range(STREAM, GROUP, "-", "+", ENTRIES_PER_COMMAND, consumername=name)
        return [entry["message_id"] for entry in found]

    def _read(self, count: int) -> list[Entry]:
        """What is pending first; whatever is new once nothing is left of it."""
        reply: Any = self._redis.xreadgroup(GROUP, CONSUMER, {STREAM: self._position}, count=count)
        entries = [_entry(StreamId.parse(name), fields) for _, found in reply for name, fields in found]
        if self._position != NEW:
            self._position = str(entries[-1].id) if entries else NEW
        return entries


def missing(entries: Iterable[Entry], number: int, written: Collection[StreamId]) -> tuple[int, int]:
    """(how many numbers are left out after ``number``, the last number).

    An entry that is gone has lost its number with the rest; where a file holds it, it is not lost.
    """
    lost = 0
    for entry in entries:
        if entry.number is None:
            lost -= entry.id in written
        elif entry.number > number:
            lost += entry.number - number - 1
            number = entry.number
    return lost, number


def _entry(name: StreamId, fields: Mapping[str, str]) -> Entry:
    if not fields:
        return Entry(name, "gone")
    number = fields.get("n", "")
    if not (number.isascii() and number.isdigit()):
        return Entry(name, "malformed")
    if session := fields.get("forget"):
        return Entry(name, "forget", int(number), session)
    session, item = fields.get("session"), fields.get("item")
    if not session or not item:
        return Entry(name, "malformed", int(number))
    return Entry(name, "click", int(number), session, item, fields.get("event", ""))
