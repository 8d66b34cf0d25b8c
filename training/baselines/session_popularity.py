"""Session popularity: what was clicked most in the session itself, then what everybody clicks."""

from __future__ import annotations

import numpy as np

from srgnn.neighbours import Votes
from srgnn.sequence import IntArray

from .votes import VoteScorer


class SessionPopularity(VoteScorer):
    """S-POP of Hidasi et al. (ICLR 2016): one vote for each click of the session, global popularity among equals."""

    @classmethod
    def fit(cls, items: IntArray, offsets: IntArray, num_items: int) -> SessionPopularity:
        """Count the clicks of sessions laid end to end: ``items`` [C], ``offsets`` [S + 1]."""
        return cls(np.bincount(items, minlength=num_items).astype(np.int64))

    def votes(self, sequence: IntArray) -> Votes:
        """The session's own clicks."""
        return Votes(sequence, np.ones(len(sequence)))
