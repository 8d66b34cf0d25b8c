"""The knee: the highest rate that a service still holds."""

import math
from collections.abc import Callable


def find_knee(
    holds: Callable[[float], bool],
    start: float,
    *,
    factor: float = 1.5,
    precision: float = 1.05,
    lowest: float = 1.0,
    highest: float = 50_000.0,
) -> float | None:
    """The highest rate found to hold, within a factor of ``precision`` of one that did not.

    From ``start`` up (or down, where it does not hold) by ``factor``, then by halving the gap. None where not even
    ``lowest`` holds; ``highest`` where everything does.
    """
    good: float | None = None
    bad: float | None = None
    rate = start
    while True:
        if holds(rate):
            good = rate
        else:
            bad = rate
        if good is None:
            if rate <= lowest:
                return None
            rate = max(rate / factor, lowest)
        elif bad is None:
            if rate >= highest:
                return good
            rate = min(rate * factor, highest)
        elif bad / good <= precision:
            return good
        else:
            rate = math.sqrt(good * bad)
