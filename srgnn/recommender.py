"""Histories of raw item ids in, next items out: what evaluation, batch jobs and the service all call."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from .blend import BlendScorer
from .catalogue import Top
from .errors import InputError
from .fallback import Fallback
from .scorer import Scorer, SRGNNScorer
from .sequence import IntArray, SessionRules, encode, window
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .engine import Engine

_NOTHING: IntArray = np.empty(0, np.int64)

Source = Literal["model", "transitions", "popularity"]


class Recommendation(NamedTuple):
    """The next items of one history, best first; fewer than k only where the exclusions leave fewer."""

    item_ids: list[str]
    scores: list[float]
    source: Source
    """What answered: the model, or without usable history or time the transitions or popularity of training."""


class Asked(NamedTuple):
    """Histories on their way through a model."""

    k: int
    sequences: list[IntArray]
    """Of those histories that hold a known item: what the model sees."""
    exclude: list[IntArray] | None
    """Rows that may not be answered, for each of these; None: there are none."""
    places: list[int]
    """Where each of these stands among all histories."""
    banned: list[IntArray]
    """Rows that may not be answered, for each history."""


class Recommender:
    """A scorer with everything that shapes its input: vocabulary, session rules, fallback."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        rules: SessionRules,
        scorer: Scorer,
        fallback: Fallback,
        version: str = "unversioned",
    ) -> None:
        self.vocabulary = vocabulary
        self.rules = rules
        self.scorer = scorer
        self.fallback = fallback
        self.version = version
        self.engine: Engine | None = None
        """The same answers from a thread of its own, where a service has started one."""

    def sequence(self, history: Sequence[str]) -> IntArray:
        """What the model sees of a history: catalogue rows, int64 [<= max_length]."""
        return window(encode(self.vocabulary, history), self.rules)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 20,
        *,
        exclude: Sequence[Collection[str]] | None = None,
        exclude_seen: bool = False,
    ) -> list[Recommendation]:
        """The next ``k`` items of each history (oldest click first).

        Unknown items are skipped; a history without a known item gets the popular items. ``exclude[i]`` ids never
        appear in answer i; ``exclude_seen`` adds the history itself. Equal scores are ordered by catalogue row, and
        the answer does not depend on what else is in the batch. Raises InputError on a bad ``k``.
        """
        asked = self.ask(histories, k, exclude=exclude, exclude_seen=exclude_seen)
        return self.tell(asked, self.recommend_rows(asked.sequences, k, asked.exclude) if asked.sequences else None)

    def ask(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        *,
        exclude: Sequence[Collection[str]] | None = None,
        exclude_seen: bool = False,
    ) -> Asked:
        """The first half of :meth:`recommend`: what the model is to be asked."""
        self._check_k(k)
        banned = self._banned(histories, exclude, exclude_seen)
        sequences = [self.sequence(history) for history in histories]
        places = [i for i, sequence in enumerate(sequences) if len(sequence)]
        excluded = [banned[i] for i in places] if exclude is not None or exclude_seen else None
        return Asked(k, [sequences[i] for i in places], excluded, places, banned)

    def tell(self, asked: Asked, top: Top | None) -> list[Recommendation]:
        """The second half: the answer to each history, from the ``top`` of those that the model was asked for."""
        answers: dict[int, Recommendation] = {}
        if top is not None:
            for i, rows, scores in zip(asked.places, top.rows.tolist(), top.scores.tolist(), strict=True):
                answers[i] = self._answer(rows, scores, "model")
        return [answers.get(i) or self._without_model(asked.k, banned) for i, banned in enumerate(asked.banned)]

    def recommend_rows(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        """The same for encoded, windowed, non-empty sequences, in catalogue rows."""
        return self.scorer.top_k(sequences, k, exclude)

    def fall_back(self, history: Sequence[str], k: int = 20, exclude: Collection[str] = ()) -> Recommendation:
        """Without the model, in microseconds: what followed the last known item, else the popular items."""
        self._check_k(k)
        known = self.sequence(history)
        return self._without_model(k, self.vocabulary.rows(exclude), int(known[-1]) if len(known) else None)

    def explain(self, history: Sequence[str]) -> list[tuple[str, float]]:
        """Attention weight of each click the model sees, oldest first; empty for a scorer without attention."""
        known = self.sequence(history)
        if not len(known) or not isinstance(self.scorer, SRGNNScorer | BlendScorer):
            return []
        ids = self.vocabulary.ids
        return [(ids[row], alpha) for row, alpha in zip(known.tolist(), self.scorer.attention(known), strict=True)]

    def _check_k(self, k: int) -> None:
        if not 1 <= k <= len(self.vocabulary):
            raise InputError(
                f"k is {k}: the catalogue has {len(self.vocabulary)} items, ask for 1 to {len(self.vocabulary)}"
            )

    def _banned(
        self,
        histories: Sequence[Sequence[str]],
        exclude: Sequence[Collection[str]] | None,
        exclude_seen: bool,
    ) -> list[IntArray]:
        """Rows that may not be answered, for each history."""
        if exclude is not None and len(exclude) != len(histories):
            raise InputError(f"exclude has {len(exclude)} entries for {len(histories)} histories: give one for each")
        banned = [_NOTHING] * len(histories) if exclude is None else [self.vocabulary.rows(items) for items in exclude]
        if exclude_seen:
            seen = [self.vocabulary.rows(history) for history in histories]
            banned = [np.concatenate(pair) for pair in zip(banned, seen, strict=True)]
        return banned

    def _without_model(self, k: int, banned: IntArray, last_row: int | None = None) -> Recommendation:
        return self._answer(*self.fallback.recommend(last_row, k, set(banned.tolist())))

    def _answer(self, rows: list[int], scores: list[float], source: Source) -> Recommendation:
        ids = self.vocabulary.ids
        if rows and rows[-1] < 0:  # only the last places of a list are ever empty
            rows = rows[: rows.index(-1)]
        return Recommendation([ids[row] for row in rows], scores[: len(rows)], source)
