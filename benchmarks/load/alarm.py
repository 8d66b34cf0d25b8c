"""Wake a selector at a time on the monotonic clock, to some 50 microseconds.

Linux's epoll counts whole milliseconds, a third of the latency that is to be measured here; its timers that are file
descriptors are exact. Elsewhere (kqueue) the timeout of ``select`` is.
"""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from selectors import EVENT_READ, BaseSelector

_CLOCK_MONOTONIC = 1  # what time.monotonic() reads on Linux
_ABSOLUTE = 1


class Alarm:
    """Calls ``ring`` from :meth:`wait` at the time :meth:`set` names; one time at most is set."""

    def __init__(self, selector: BaseSelector, ring: Callable[[], None]) -> None:
        self._selector, self._ring = selector, ring
        self._when: float | None = None
        self._descriptor = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._setting = (ctypes.c_long * 4)()  # struct itimerspec: interval, then time, each in s and ns
            self._setting_at = ctypes.byref(self._setting)
            self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            if self._descriptor < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create")
            selector.register(self._descriptor, EVENT_READ, lambda ready: ring())

    def set(self, when: float | None) -> None:
        """Ring at ``when``, in seconds of ``time.monotonic()``, at once where that has passed; None: never."""
        self._when = when
        if self._descriptor >= 0:
            # A time of 0 stops it. Setting it also takes back that it has rung, so nothing needs to be read.
            self._setting[2], self._setting[3] = divmod(int((when or 0) * 1e9), 1_000_000_000)
            self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, self._setting_at, None)

    def wait(self, seconds: float) -> None:
        """Let the selector call everything that is ready, after ``seconds`` at most."""
        if self._when is not None and self._descriptor < 0:
            seconds = min(seconds, max(self._when - time.monotonic(), 0))
        for key, ready in self._selector.select(seconds):
            key.data(ready)
        if self._when is not None and self._descriptor < 0 and time.monotonic() >= self._when:
            self._ring()

    def close(self) -> None:
        """Never ring again."""
        if self._descriptor >= 0:
            self._selector.unregister(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
