"""The writing side of the click stream as service/clicklog/stream.py describes it, for tests of the reading side."""

from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.clicklog.stream import NUMBER, STREAM

ADD = """
local number = redis.call('INCR', KEYS[2])
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'n', number, unpack(ARGV, 2))
"""


@dataclass
class Writer:
    """Adds entries as the service's script does."""

    url: str
    most: int = 1_000_000
    redis: Any = field(init=False)

    def __post_init__(self) -> None:
        self.redis = Redis.from_url(self.url, decode_responses=True, retry=Retry(NoBackoff(), 0))  # not a click twice
        self._add = self.redis.register_script(ADD)

    def click(self, session: str, item: str, event: str = "") -> str:
        """The id of the entry."""
        return str(self._add([STREAM, NUMBER], [self.most, "session", session, "item", item, "event", event]))

    def forget(self, session: str) -> str:
        return str(self._add([STREAM, NUMBER], [self.most, "forget", session]))

    def close(self) -> None:
        self.redis.close()
