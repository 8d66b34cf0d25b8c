"""Every prefix of every session is an example: what was clicked so far -> what came next."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from srgnn.sequence import IntArray, SessionRules, window_starts

from .corpus import Split


class ExampleBatch(NamedTuple):
    """B windowed prefixes laid end to end, and what came next."""

    items: IntArray
    """[C] catalogue rows."""
    lengths: IntArray
    """[B] >= 1."""
    targets: IntArray
    """[B] catalogue rows."""


class Examples:
    """The examples of a split, sessions in order, prefixes from short to long; an example is three numbers."""

    def __init__(self, split: Split, rules: SessionRules) -> None:
        offsets = np.asarray(split.offsets, dtype=np.int64)
        self.items: npt.NDArray[np.int32] = split.items
        sizes = np.diff(offsets) - 1  # prefixes a session
        if len(sizes) and sizes.min() < 0:
            raise ValueError("a split holds an empty session")
        self.session: IntArray = np.repeat(np.arange(len(sizes)), sizes)  # [n]
        first = np.cumsum(sizes) - sizes
        self.positions: IntArray = np.arange(len(self.session)) - first[self.session] + 1  # [n] clicks so far
        begins = offsets[self.session]
        self._ends = begins + self.positions  # the window ends before the target
        self._starts = window_starts(begins, self._ends, rules)

    def __len__(self) -> int:
        return len(self.session)

    @property
    def targets(self) -> IntArray:
        """What came next: rows [n]."""
        targets: IntArray = self.items[self._ends].astype(np.int64)
        return targets

    def batch(self, indices: IntArray) -> ExampleBatch:
        """The examples of these indices [B]."""
        starts, lengths = self._starts[indices], self._ends[indices] - self._starts[indices]
        first = np.cumsum(lengths) - lengths
        places = np.arange(int(lengths.sum())) + np.repeat(starts - first, lengths)  # [C]
        targets = self.items[self._ends[indices]]
        return ExampleBatch(self.items[places].astype(np.int64), lengths, targets.astype(np.int64))

    def sequences(self, indices: IntArray) -> list[IntArray]:
        """The windowed prefixes of these indices, as a recommender takes them."""
        starts, ends = self._starts[indices].tolist(), self._ends[indices].tolist()
        return [self.items[start:end].astype(np.int64) for start, end in zip(starts, ends, strict=True)]
