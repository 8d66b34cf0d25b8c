"""Sessions in Redis: shared by any number of workers, one round trip for a click.

One list a session under ``srgnn:session:2:{<session id>}``, oldest click first. An entry is
``<number>\\n<ms>\\n<event id>\\n<item id>``: the click's number in the session, its time by Redis' clock, its event id
(empty where there was none) and the raw external item id. Beside it, under the same hash tag, what was answered to the
last click: ``<number>\\n<source>\\n<item id>\\n<item id>...``.

Every accepted click is also added to the click stream, by the same script: :mod:`service.clicklog.stream`.
"""

from collections.abc import Awaitable, Sequence
from hashlib import sha1
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    InvalidResponse,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)

from srgnn.errors import StoreMisconfigured, StoreUnavailable

from ..clicklog.stream import NUMBER, STREAM
from ..tracing import span
from .pipeline import Pipeline, Word
from .store import REMEMBERED_CLICKS, Answer, Session, StoreSilent, TooManyClicks

KEY_PREFIX = "srgnn:session:2:"
ANSWER_PREFIX = "srgnn:answer:2:"
"""The number is the version of the stored form."""

APPEND = """
local key, answer, stream, counter = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local session, item, event = ARGV[1], ARGV[2], ARGV[3]
local keep, remember, idle_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local per_second, per_session, stream_length = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
if event ~= '' then
  local recent = redis.call('LRANGE', key, -remember, -1)
  for i = #recent, 1, -1 do
    if string.match(recent[i], '^%d+\\n%d+\\n([^\\n]*)\\n') == event then
      local since = #recent - i
      return {redis.call('LRANGE', key, -keep - since, -1 - since)}
    end
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = redis.call('LINDEX', key, -1)
local number = last and tonumber(string.match(last, '^%d+')) + 1 or 1
if per_session > 0 and number > per_session then
  return redis.call('PTTL', key)
end
if per_second > 0 and number > per_second then
  local passed = now - string.match(redis.call('LINDEX', key, -per_second), '^%d+\\n(%d+)')
  if passed >= 0 and passed < 1000 then
    return 1000 - passed
  end
end
redis.call('RPUSH', key, number .. '\\n' .. now .. '\\n' .. event .. '\\n' .. item)
redis.call('LTRIM', key, -keep - remember, -1)
redis.call('PEXPIRE', key, idle_ms)
if stream_length > 0 then
  redis.call('XADD', stream, 'MAXLEN', '~', stream_length, '*',
    'n', redis.call('INCR', counter), 'session', session, 'item', item, 'event', event)
end
return {redis.call('LRANGE', key, -keep, -1), redis.call('GET', answer)}
"""
"""The kept clicks, and of a new one the answer to the click before; of a refused one the ms until one is taken."""

FORGET = """
redis.call('DEL', KEYS[1], KEYS[2])
local stream_length = tonumber(ARGV[2])
if stream_length > 0 then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', stream_length, '*', 'n', redis.call('INCR', KEYS[4]), 'forget', ARGV[1])
end
"""


class RedisSessionStore:
    """A :class:`SessionStore` in Redis. No call takes longer than ``timeout_seconds``, connecting included.

    Nothing is retried here: a lost answer leaves open whether the click was stored, and only the caller knows
    whether it carries an event id that makes a second try harmless. A connection that Redis closed meanwhile is
    replaced on the next call, so a restart of Redis needs no retry either.

    ``stream_length``: entries kept in the click stream, about; 0 writes none.
    """

    def __init__(
        self,
        url: str,
        *,
        max_clicks: int,
        idle_seconds: float,
        timeout_seconds: float,
        max_waiting: int,
        clicks_per_second: int = 0,
        clicks_per_session: int = 0,
        stream_length: int = 0,
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
        self._bounds = (max_clicks, REMEMBERED_CLICKS, self._idle_ms, clicks_per_second, clicks_per_session)
        self._stream_length = stream_length

    async def append(self, session_id: str, item_id: str, event_id: str | None = None) -> Session:
        """Add one click; see :class:`SessionStore`."""
        arguments = (session_id, item_id, event_id or "", *self._bounds, self._stream_length)
        reply = await self._answer("append", self._run(APPEND, APPEND_SHA, session_id, *arguments))
        if isinstance(reply, int):
            raise TooManyClicks(reply / 1000)
        session = _session(reply[0])
        return session if len(reply) == 1 else _new(session, reply[1])

    def remember(self, session_id: str, clicks: int, answer: Answer) -> None:
        """Keep what was answered; see :class:`SessionStore`."""
        text = "\n".join((str(clicks), answer.source, *answer.items))
        self._redis.post("SET", _answer_key(session_id), text, "PX", self._idle_ms)

    async def read(self, session_id: str) -> Session:
        """Return the session as it is now."""
        return _session(await self._answer("read", self._redis.call("LRANGE", _key(session_id), -self._max_clicks, -1)))

    async def delete(self, session_id: str) -> None:
        """Forget the session; what already left the click stream is for its reader to forget."""
        await self._answer("delete", self._run(FORGET, FORGET_SHA, session_id, session_id, self._stream_length))

    async def ping(self) -> None:
        """Return if Redis answers."""
        await self._answer("ping", self._redis.call("PING"))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._redis.aclose()

    async def _run(self, script: str, sha: str, session_id: str, *arguments: Word) -> Any:
        keys = (4, _key(session_id), _answer_key(session_id), STREAM, NUMBER)
        try:
            return await self._redis.call("EVALSHA", sha, *keys, *arguments)
        except NoScriptError:  # a new Redis: nothing was run
            return await self._redis.call("EVAL", script, *keys, *arguments)

    async def _answer(self, operation: str, call: Awaitable[Any]) -> Any:
        with span(f"store {operation}"):
            try:
                return await call
            except (AuthenticationError, AuthorizationError, NoPermissionError, InvalidResponse) as error:
                raise StoreMisconfigured(
                    f"session store {self._name} refused {operation}: {error}. Check user and password, and that a "
                    "Redis is there"
                ) from error
            except (RedisError, OSError, UnicodeError) as error:
                # What Redis does not know it repeats with its arguments: a session's id would be in the log.
                cause = str(error).partition(", with args")[0] or type(error).__name__
                kind = StoreUnavailable if isinstance(error, ResponseError) else StoreSilent
                raise kind(
                    f"session store {self._name} failed on {operation}: {cause}. "
                    "Check that Redis runs there and can be reached"
                ) from error


def without_password(url: str) -> str:
    """``url`` without user, password and query (which may hold either), fit for logs and messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _sha(script: str) -> str:
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


APPEND_SHA, FORGET_SHA = _sha(APPEND), _sha(FORGET)


def _key(session_id: str) -> str:
    return f"{KEY_PREFIX}{{{session_id}}}"


def _answer_key(session_id: str) -> str:
    return f"{ANSWER_PREFIX}{{{session_id}}}"


def _session(entries: Sequence[Any]) -> Session:
    if not entries:
        return Session()
    clicks = int(entries[-1].partition("\n")[0])
    return Session(tuple(entry.split("\n", 3)[3] for entry in entries), clicks)


def _new(session: Session, answer: str | None) -> Session:
    number, source, *items = answer.split("\n") if answer else ("", "")
    known = number == str(session.clicks - 1)
    return Session(session.items, session.clicks, new=True, answered=Answer(source, tuple(items)) if known else None)
