"""A stop that loses no request: readiness goes first, then connections empty out, then the port closes.

Whoever sends requests here looks at /readyz, but only now and then. So for ``drain_seconds`` after the signal the
service answers as ever, except that /readyz says 503 and each answer closes its connection.
"""

import logging
import time
from types import FrameType

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class Drain:
    """Whether this process is about to stop."""

    begun = False


class CloseConnections:
    """ASGI middleware: while draining, each answer is the last of its connection."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_last(message: Message) -> None:
            if self.drain.begun and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self.app(scope, receive, send_last)


class DrainingServer(uvicorn.Server):
    """uvicorn, whose first signal to stop begins ``drain`` and whose second one, or ``seconds``, ends it."""

    def __init__(self, config: uvicorn.Config, drain: Drain, seconds: int) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self._until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self._drain.begun or not self._seconds:
            super().handle_exit(sig, frame)
        self._drain.begun = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; whether to stop."""
        if self._drain.begun and self._until is None:  # here, because a signal handler must not log
            self._until = time.monotonic() + self._seconds
            logger.info("draining", extra={"fields": {"seconds": self._seconds}})
        if self._until is not None and time.monotonic() >= self._until:
            self.should_exit = True
        return await super().on_tick(counter)
