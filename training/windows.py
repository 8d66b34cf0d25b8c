"""A log cut by time into windows of equal length, each prepared, trained on and judged by itself.

One cut judges a model on one day, which may be a strange one; mean and spread over windows say how far a figure can be
relied on (Ludewig & Jannach, Evaluation of session-based recommendation algorithms, 2018). A window takes the sessions
that begin in it, so no two share one. The first begins with the log's first session, the others follow without a gap.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from srgnn.errors import ConfigError, DataError

from . import sources
from .config import DataConfig

MS_PER_DAY = 86_400_000


class Window(NamedTuple):
    """The sessions that begin at `start` or later and before `end`, both in ms since 1970."""

    number: int
    of: int
    start: int
    end: int

    def __str__(self) -> str:
        return f"window {self.number} of {self.of}, {date(self.start)} to {date(self.end)}"

    def to_json(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"number": self.number, "of": self.of, "start": date(self.start), "end": date(self.end)}


def require_windows(data: DataConfig) -> None:
    """Raise ConfigError where windows are asked for that cannot be cut, or would not be fair."""
    if data.windows == 1 and data.window_days:
        raise ConfigError(
            f"data.window_days = {data.window_days} with data.windows = 1: expected 2 windows or more, such as "
            "--set data.windows=5; one window is the whole log"
        )
    if data.windows == 1:
        return
    if data.source in sources.WITHOUT_CLOCK:
        raise ConfigError(f"source '{data.source}' has no clock to cut {_asked(data)} by: --set data.windows=1")
    if data.split == "files":
        raise ConfigError(
            f"{_asked(data)} with data.split = 'files': files that come cut have one training and one test part; "
            "to cut them anew, as one log, --set data.split=time"
        )
    if data.protocol == "srgnn":
        raise ConfigError(
            f"{_asked(data)} with data.protocol = 'srgnn', which is for the published single cut and would count an "
            "item's support over the held-out clicks of each window: --set data.protocol=strict"
        )


def cut_windows(data: DataConfig, first: int, last: int) -> list[Window]:
    """The windows of a log whose first and last session begin at these ms.

    Raises DataError where the last window would begin after the last session.
    """
    if data.window_days:
        length = round(data.window_days * MS_PER_DAY)
        bounds = [first + number * length for number in range(data.windows + 1)]
    else:
        bounds = [first + number * (last + 1 - first) // data.windows for number in range(data.windows + 1)]
    if bounds[-2] > last:
        raise DataError(
            f"{_asked(data)} of {data.window_days:g} days do not fit: the sessions begin from {date(first)} to "
            f"{date(last)}, {(last - first) / MS_PER_DAY:.1f} days; take fewer windows or a smaller data.window_days"
        )
    return [Window(number + 1, data.windows, *bounds[number : number + 2]) for number in range(data.windows)]


def too_small(window: Window, error: DataError, sessions: Iterable[int]) -> DataError:
    """What is wrong with one window, beside the number of sessions that begin in each."""
    return DataError(
        f"{window}: {error}. Sessions that begin in the windows: {', '.join(f'{count:,}' for count in sessions)}; "
        "fewer windows (data.windows) are larger, and where a few stray sessions lie far from the others "
        "data.window_days keeps the windows to the beginning of the log"
    )


def date(ms: int) -> str:
    """ISO 8601, UTC."""
    return str(np.datetime64(ms, "ms"))


def _asked(data: DataConfig) -> str:
    return f"data.windows = {data.windows}"
