"""How much may be done in a second."""

import time


class Bucket:
    """Room for a second's worth of something that fills up again at ``rate`` a second; 0 is no limit."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = self._left = max(rate, 1.0)
        self._filled = time.monotonic()

    def take(self) -> bool:
        """Whether there was room for one more, which is in it now."""
        if not self._rate:
            return True
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._filled) * self._rate)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
