"""Which of several workers takes a new connection: the one that has fewest.

All watch one listening socket, and whoever looks first gets the connection. Left at that, one worker may come to have
all of the few that a balancer or a batch client opens and keeps, and the others' processors nothing to do. So each
counts its connections where all see it, and one that has more than another leaves a new one to that for a moment. For
no longer: that another worker hangs is no reason to take none.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from ctypes import Array, c_long
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn

from .bucket import Bucket
from .connections import BoundedHttp
from .drain import Drain, DrainingServer

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.001
"""Between two looks at a connection that was left to another worker."""
LOOKS = 10
"""How often one connection is looked at before this worker takes it."""
LOOKS_PER_SECOND = 50
"""Past them a worker takes what it can: another hangs, or so many connections come and go that chance shares them out,
and the processors would be idle (docs/log.md)."""
FAILED_SECONDS = 1.0
"""Pause after a connection that the system could not give us."""
NOBODY = -1


@dataclass(frozen=True)
class Share:
    """The connections of one worker among those of all."""

    counts: "Array[c_long]"
    """Of each worker, less than 0 where none serves. In memory that all see; a worker writes its own entry alone."""
    index: int

    def enter(self) -> None:
        """Take part, with no connection yet."""
        self.counts[self.index] = 0

    def leave(self) -> None:
        """Take part no more; where the worker was killed, its parent says so."""
        self.counts[self.index] = NOBODY

    def add(self, connections: int) -> None:
        """Of this worker, -1 for one that is closed."""
        self.counts[self.index] += connections

    def others(self) -> list[int]:
        """The connections of each other worker that serves."""
        return [count for index, count in enumerate(self.counts) if index != self.index and count >= 0]

    def exceeds_another(self) -> bool:
        """Whether another worker has fewer."""
        return any(count < self.counts[self.index] for count in self.others())


class SharingServer(DrainingServer):
    """The server of one of several workers."""

    def __init__(self, config: uvicorn.Config, drain: Drain, seconds: int, share: Share) -> None:
        super().__init__(config, drain, seconds)
        self._share = share

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept from these sockets, but not by uvicorn's way, which takes whatever comes."""
        await super().startup(sockets=[])
        for listener in sockets or []:
            acceptor = Acceptor(listener, self._share, self._protocol)
            acceptor.start()
            self.servers.append(acceptor)  # type: ignore[arg-type]  # as much of a Server as uvicorn needs

    def _protocol(self) -> BoundedHttp:
        protocol = BoundedHttp(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        protocol.on_lost = partial(self._share.add, -1)
        return protocol


class Acceptor:
    """Takes connections from a listening socket that other workers watch too."""

    def __init__(self, listener: socket.socket, share: Share, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._share = share
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._looks = Bucket(LOOKS_PER_SECOND)

    def start(self) -> None:
        """Take connections from now on."""
        self._listener.setblocking(False)
        self._share.enter()
        self._watch()

    def close(self) -> None:
        """Take no more."""
        self._stop_watching()
        if self._timer:
            self._timer.cancel()
        self._share.leave()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for: see asyncio.Server."""

    def _watch(self) -> None:
        self._loop.add_reader(self._listener, self._see)

    def _stop_watching(self) -> None:
        self._loop.remove_reader(self._listener)

    def _see(self) -> None:
        """A connection waits: take it, or leave it to others."""
        if self._leaves_it():
            self._stop_watching()
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look_again, LOOKS - 1)
        else:
            self._take()

    def _look_again(self, looks: int) -> None:
        """Another may have taken it meanwhile; ``looks`` are left."""
        if looks and self._leaves_it():
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look_again, looks - 1)
        else:
            self._watch()
            self._take()

    def _leaves_it(self) -> bool:
        """Whether another worker has fewer connections, and there is time to wait for it."""
        return self._share.exceeds_another() and self._looks.take()

    def _take(self) -> None:
        """One connection, if it is still there."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another was quicker, or the client is gone
            return
        except OSError as error:  # no memory or no file is left: it would be seen again at once
            logger.error("no connection can be taken for a second", extra={"fields": {"cause": str(error)}})
            self._stop_watching()
            self._timer = self._loop.call_later(FAILED_SECONDS, self._watch)
            return
        self._share.add(1)
        opening = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
