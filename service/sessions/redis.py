"""Sessions in Redis: shared by any number of workers, one round trip for a click.

One list a session under ``srgnn:session:1:{<session id>}``, oldest click first; the braces are a hash tag, so
that whatever is ever stored beside it lands in the same Redis Cluster slot. An entry is
``<number>\\n<event id>\\n<item id>``: the click's number in the session, its event id (empty where there was
none) and the raw external item id.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from srgnn.errors import StoreUnavailable

from .store import REMEMBERED_CLICKS, Session

KEY_PREFIX = "srgnn:session:1:"
"""The number is the version of the stored form."""

APPEND = """
local key, item, event = KEYS[1], ARGV[1], ARGV[2]
local keep, remember, idle_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
if event ~= '' then
  local recent = redis.call('LRANGE', key, -remember, -1)
  for i = #recent, 1, -1 do
    if string.match(recent[i], '^%d+\\n([^\\n]*)\\n') == event then
      local since = #recent - i
      return redis.call('LRANGE', key, -keep - since, -1 - since)
    end
  end
end
local last = redis.call('LINDEX', key, -1)
local number = last and tonumber(string.match(last, '^%d+')) + 1 or 1
redis.call('RPUSH', key, number .. '\\n' .. event .. '\\n' .. item)
redis.call('LTRIM', key, -keep - remember, -1)
redis.call('PEXPIRE', key, idle_ms)
return redis.call('LRANGE', key, -keep, -1)
"""

T = TypeVar("T")


class RedisSessionStore:
    """A :class:`SessionStore` in Redis. No call takes longer than ``timeout_seconds``, connecting included.

    Nothing is retried here: a lost answer leaves open whether the click was stored, and only the caller knows
    whether it carries an event id that makes a second try harmless. A pooled connection that Redis closed
    meanwhile is replaced before it is used, so a restart of Redis needs no retry either.
    """

    def __init__(
        self, url: str, *, max_clicks: int, idle_seconds: float, timeout_seconds: float, max_connections: int
    ) -> None:
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # under RESP3 redis-py 8 no longer looks whether a pooled connection was closed
            decode_responses=True,
        )
        self._redis = Redis(connection_pool=self._pool)
        self._append = self._redis.register_script(APPEND)
        self._name = without_password(url)
        self._max_clicks = max_clicks
        self._idle_ms = int(idle_seconds * 1000)
        self._timeout_seconds = timeout_seconds
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def append(self, session_id: str, item_id: str, event_id: str | None = None) -> Session:
        """Add one click; see :class:`SessionStore`."""
        arguments: list[str | int] = [
            item_id,
            event_id or "",
            self._max_clicks,
            REMEMBERED_CLICKS,
            self._idle_ms,
        ]
        return _session(await self._call("append", self._append([_key(session_id)], arguments)))

    async def read(self, session_id: str) -> Session:
        """Return the session as it is now."""
        return _session(await self._call("read", self._redis.lrange(_key(session_id), -self._max_clicks, -1)))

    async def delete(self, session_id: str) -> None:
        """Forget the session."""
        await self._call("delete", self._redis.delete(_key(session_id)))

    async def ping(self) -> None:
        """Return if Redis answers."""
        await self._call("ping", self._redis.ping())

    async def aclose(self) -> None:
        """Close every connection."""
        await self._redis.aclose()
        await self._pool.aclose()

    async def _call(self, operation: str, call: Awaitable[T]) -> T:
        # The call is abandoned at the deadline, not cancelled: a cancellation that hits redis-py while it
        # hands a connection back would leak it from the pool. Its own socket timeouts end it soon after.
        task = asyncio.ensure_future(call)
        done, _ = await asyncio.wait({task}, timeout=self._timeout_seconds)
        if not done:
            self._abandon(task)
            raise self._unavailable(operation, f"no answer within {self._timeout_seconds * 1000:.0f} ms")
        try:
            return task.result()
        except (RedisError, OSError, UnicodeError) as error:
            raise self._unavailable(operation, str(error) or type(error).__name__) from error

    def _abandon(self, task: "asyncio.Task[Any]") -> None:
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not log it as never retrieved

    def _unavailable(self, operation: str, cause: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"session store {self._name} failed on {operation}: {cause}. Check that Redis runs there and can be reached"
        )


def without_password(url: str) -> str:
    """``url`` without user, password and query (which may hold either), fit for logs and messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _key(session_id: str) -> str:
    return f"{KEY_PREFIX}{{{session_id}}}"


def _session(entries: Sequence[Any]) -> Session:
    if not entries:
        return Session()
    clicks = int(entries[-1].partition("\n")[0])
    return Session(tuple(entry.split("\n", 2)[2] for entry in entries), clicks)
