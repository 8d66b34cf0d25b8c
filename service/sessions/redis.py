"""Sessions in Redis: shared by any number of workers, one round trip for a click.

One list a session under ``srgnn:session:1:{<session id>}``, oldest click first; the braces are a hash tag, so
that whatever is ever stored beside it lands in the same Redis Cluster slot. An entry is
``<number>\\n<event id>\\n<item id>``: the click's number in the session, its event id (empty where there was
none) and the raw external item id.
"""

from collections.abc import Awaitable, Sequence
from hashlib import sha1
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from srgnn.errors import StoreUnavailable

from .pipeline import Pipeline
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

APPEND_SHA = sha1(APPEND.encode(), usedforsecurity=False).hexdigest()


class RedisSessionStore:
    """A :class:`SessionStore` in Redis. No call takes longer than ``timeout_seconds``, connecting included.

    Nothing is retried here: a lost answer leaves open whether the click was stored, and only the caller knows
    whether it carries an event id that makes a second try harmless. A connection that Redis closed meanwhile is
    replaced on the next call, so a restart of Redis needs no retry either.
    """

    def __init__(
        self, url: str, *, max_clicks: int, idle_seconds: float, timeout_seconds: float, max_waiting: int
    ) -> None:
        pool = ConnectionPool.from_url(
            url,
            socket_connect_timeout=timeout_seconds,
            socket_timeout=None,  # a quiet connection is a good one; each call has its own deadline
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            decode_responses=True,
        )
        self._redis = Pipeline(pool.make_connection, timeout_seconds=timeout_seconds, max_waiting=max_waiting)
        self._name = without_password(url)
        self._max_clicks = max_clicks
        self._idle_ms = int(idle_seconds * 1000)

    async def append(self, session_id: str, item_id: str, event_id: str | None = None) -> Session:
        """Add one click; see :class:`SessionStore`."""
        arguments = (item_id, event_id or "", self._max_clicks, REMEMBERED_CLICKS, self._idle_ms)
        return _session(await self._answer("append", self._append(_key(session_id), *arguments)))

    async def read(self, session_id: str) -> Session:
        """Return the session as it is now."""
        return _session(await self._answer("read", self._redis.call("LRANGE", _key(session_id), -self._max_clicks, -1)))

    async def delete(self, session_id: str) -> None:
        """Forget the session."""
        await self._answer("delete", self._redis.call("DEL", _key(session_id)))

    async def ping(self) -> None:
        """Return if Redis answers."""
        await self._answer("ping", self._redis.call("PING"))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._redis.aclose()

    async def _append(self, key: str, *arguments: str | int) -> Any:
        try:
            return await self._redis.call("EVALSHA", APPEND_SHA, 1, key, *arguments)
        except NoScriptError:  # a new Redis: nothing was run
            return await self._redis.call("EVAL", APPEND, 1, key, *arguments)

    async def _answer(self, operation: str, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except (RedisError, OSError, UnicodeError) as error:
            # What Redis does not know it repeats with its arguments: a session's id would be in the log.
            cause = str(error).partition(", with args")[0] or type(error).__name__
            raise StoreUnavailable(
                f"session store {self._name} failed on {operation}: {cause}. "
                "Check that Redis runs there and can be reached"
            ) from error


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
