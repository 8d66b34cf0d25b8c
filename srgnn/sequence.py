"""From a raw click history to the sequence of catalogue rows that the model sees. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .vocabulary import Vocabulary

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SessionRules:
    """What of a session the model looks at; saved in the artifact, no other setting changes model input."""

    max_length: int = 50
    """Clicks of a session that count: the last ``max_length`` known ones."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_length <= 10_000:
            raise ConfigError(f"rules.max_length is {self.max_length}: expected 1 to 10000 clicks")


def encode(vocabulary: Vocabulary, history: Sequence[str]) -> IntArray:
    """Rows of the known clicks of ``history``, oldest first: int64 [<= n]. Unknown items are skipped."""
    return vocabulary.rows(history)


def window(rows: IntArray, rules: SessionRules) -> IntArray:
    """The last clicks of one sequence: int64 [min(n, max_length)]."""
    return rows[-rules.max_length :]


def window_starts(starts: IntArray, ends: IntArray, rules: SessionRules) -> IntArray:
    """Where the same windows of many begin, that end (exclusively) at ``ends`` [B] of sequences from ``starts`` [B]."""
    begins: IntArray = np.maximum(starts, ends - rules.max_length)
    return begins
