"""Exact search over the item embeddings: the top k of the catalogue, and the rank of a given item.

The answer must not depend on how many sessions were scored together, on the processor or on the kind of scan, or
offline and online would disagree. So a scan only tells which items are *within reach*: rough scores and a bound on
their error (:mod:`srgnn.scan`) rule out whatever cannot be among the best k. The rest, a few dozen, is scored in
float64; ties break by catalogue row. ``-inf`` marks items that may not be answered.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import InputError
from .loops import FloatArray, IntArray
from .loops.evidence import Pairs
from .loops.layout import GROUP
from .loops.search import best_of_block, best_rows, counted, exact_scores
from .scan import Float32Scan, Quantised, Scan, choose_scan, num_groups

SESSIONS_AT_ONCE = 192
"""The more at once, the less a product costs each; twice as many would gain a little, for twice the memory."""
SCORES_AT_ONCE = 1 << 23
"""Rough scores held at once, 32 MiB."""

NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


class Top(NamedTuple):
    """The best k items of each session; -1 / -inf where fewer than k may be answered."""

    rows: IntArray
    """[B, k], by falling score, equal scores by row."""
    scores: npt.NDArray[np.float32]
    """[B, k]."""


class Best(NamedTuple):
    """The same of b sessions, with the exact scores."""

    rows: IntArray
    """[b, k]."""
    scores: FloatArray
    """[b, k]."""


class Ranks(NamedTuple):
    """Where the target stands among all V items, ties counted against it."""

    rank: IntArray
    """[B]: number of items scoring at least as much as the target, itself included; 1 is best."""
    ties: IntArray
    """[B]: other items with exactly the target's score."""


class Index(Protocol):
    """Names the items within reach without a scan, not all of them for certain: for catalogues too large to scan."""

    @property
    def name(self) -> str:
        """As shown in GET /model."""

    def near(self, vectors: Tensor, k: int, exclude: Sequence[IntArray] | None) -> tuple[IntArray, IntArray]:
        """Float64 [B, d] -> pairs of a session and a row, [M] each; none that may not be answered."""


class Catalogue:
    """V item embeddings and which of them may be answered (``servable`` [V] bool: items with training clicks).

    ``matrix`` is float32 [V, d], ``quantised`` its int8 form where there is one; neither is copied, so that both may
    be mapped files. With an ``index`` the top k are searched in what it names; ranks never are.
    """

    def __init__(
        self, matrix: Tensor, servable: Tensor, quantised: Quantised | None = None, index: Index | None = None
    ) -> None:
        self.num_items, self.width = matrix.shape
        self.matrix = matrix.detach().float()
        self.servable = servable.bool()
        self.index = index
        self._quantised = quantised
        self._servable = self.servable.numpy()
        self._items = self.matrix.numpy()
        self._banned = np.flatnonzero(~self._servable)

    @cached_property
    def scan(self) -> Scan:
        """What the top k are searched in, without an index. Made on first use: it reads the whole catalogue."""
        return choose_scan(self.matrix, self._quantised, self._banned)

    @cached_property
    def _float32(self) -> Float32Scan:
        """What ranks are counted in."""
        return Float32Scan(self.matrix)

    @property
    def search(self) -> str:
        """How the top k are found."""
        return self.index.name if self.index else self.scan.name

    def top_k(
        self,
        vectors: Tensor,
        k: int,
        exclude: Sequence[IntArray] | None = None,
        bonuses: Pairs = NO_PAIRS,
    ) -> Top:
        """Session vectors float64 [B, d] -> the best ``k`` rows; ``exclude[i]`` rows are left out of answer i.

        ``bonuses``, in the order of sessions, are added to scores; the answer is as exact as without.
        """
        if not 1 <= k <= self.num_items:
            raise InputError(f"k is {k}: the catalogue has {self.num_items} items, ask for 1 to {self.num_items}")
        find = self._scanned if self.index is None else self._near
        found = []
        for start in range(0, len(vectors), SESSIONS_AT_ONCE):
            part = slice(start, start + SESSIONS_AT_ONCE)
            left_out = exclude[part] if exclude is not None else None
            extra = _of_sessions(bonuses, start, start + SESSIONS_AT_ONCE)
            found.append(find(vectors[part], k, left_out, extra))
        rows, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return Top(rows, scores.astype(np.float32))

    def ranks(self, vectors: Tensor, targets: IntArray, bonuses: Pairs = NO_PAIRS) -> Ranks:
        """Rank of ``targets`` [B] for session vectors float64 [B, d]; ``bonuses`` as in :meth:`top_k`.

        An item that may not be answered ranks last.
        """
        v, wanted = vectors.numpy(), np.asarray(targets, dtype=np.int64)
        size = max(1, SCORES_AT_ONCE // self.num_items)
        found = []
        for start in range(0, len(vectors), size):
            part = slice(start, start + size)
            extra = _of_sessions(bonuses, start, start + size)
            found.append(self._ranks_of_block(v[part], wanted[part], self._answerable(extra)))
        return Ranks(*map(np.concatenate, zip(*found, strict=True)))

    def _answerable(self, pairs: Pairs, left_out: Pairs = NO_PAIRS) -> Pairs:
        """Without the items that may not be answered, at all or in this answer."""
        kept = self._servable[pairs.rows]
        if len(left_out.rows):
            places, banned = (each.sessions * self.num_items + each.rows for each in (pairs, left_out))
            kept &= ~np.isin(places, banned)
        return Pairs(*(values[kept] for values in pairs))

    def _scanned(self, vectors: Tensor, k: int, left_out: Sequence[IntArray] | None, bonuses: Pairs) -> Best:
        """The best k of the whole catalogue, a block of it at a time."""
        scan, excluded, floors = self.scan, _left_out(left_out), np.full((len(vectors), k), -np.inf)
        query, best = scan.query(vectors), []
        for groups in self._blocks(len(vectors)):
            block = scan.bests(query, groups), *scan.groups(groups), groups.start * GROUP, scan.low
            exact = self._items, vectors.numpy()
            flat: tuple[Any, ...] = (*block, *scan.searched, *query.asking, *query.margins)
            flat += (*excluded, *bonuses, floors, *exact)
            rows, scores, _ = best_of_block(*flat)
            best.append(Best(rows, scores))
        return best[0] if len(best) == 1 else _best_of(best, k)

    def _near(self, vectors: Tensor, k: int, left_out: Sequence[IntArray] | None, bonuses: Pairs) -> Best:
        """The best k of what the index names, and of what has a bonus."""
        assert self.index is not None
        answerable = self._answerable(bonuses, _left_out(left_out))
        known = [answerable.rows[answerable.sessions == i] for i in range(len(vectors))]
        if left_out is not None:
            known = [np.concatenate(pair) for pair in zip(known, left_out, strict=True)]
        near = self.index.near(vectors, k, known)
        pairs = _concatenated([Pairs(*near, np.zeros(len(near[0]))), answerable])
        return Best(*best_rows(self._items, vectors.numpy(), pairs, k))

    def _blocks(self, sessions: int) -> Iterator[slice]:
        """Groups to score at once for so many sessions."""
        groups, size = num_groups(self.num_items), max(1, SCORES_AT_ONCE // (self.scan.at_once * sessions))
        return (slice(start, min(start + size, groups)) for start in range(0, groups, size))

    def _ranks_of_block(self, vectors: FloatArray, targets: IntArray, bonuses: Pairs) -> tuple[IntArray, IntArray]:
        query, everything = self._float32.query(torch.from_numpy(vectors)), slice(0, num_groups(self.num_items))
        scores = self._float32.rough(query, everything)  # [b, V and what is past it]
        scores[:, self._banned] = -np.inf
        exact_own = exact_scores(self._items, targets, vectors, np.arange(len(vectors)))  # [b]
        sessions, rows, added = bonuses
        scores[sessions, rows] = -np.inf  # counted by themselves, exactly
        with_bonus = exact_scores(self._items, rows, vectors, sessions) + added  # [M]
        is_target = rows == targets[sessions]
        exact_own[sessions[is_target]] = with_bonus[is_target]
        counted_already = np.bincount(sessions[is_target], minlength=len(vectors))  # [b]: 1 for a target with a bonus
        # twice, so that rounding the borders cannot matter
        error = 2 * self._float32.groups(everything).longest.max() * query.margins.on_longest
        low, high = (exact_own - error).astype(np.float32), (exact_own + error).astype(np.float32)
        above, from_low = counted(scores, self.num_items, low, high)
        rank, tied = above + 1, np.ones_like(above)  # between the borders: as a rule the target alone, if at all
        for i in np.flatnonzero(from_low - above > 1 - counted_already).tolist():
            own_scores = scores[i, : self.num_items]
            near = np.flatnonzero((own_scores >= low[i]) & (own_scores <= high[i]))
            exact = exact_scores(self._items, near, vectors, np.full_like(near, i))
            rank[i] = above[i] + (exact >= exact_own[i]).sum() + counted_already[i]
            tied[i] = (exact == exact_own[i]).sum() + counted_already[i]
        others = ~is_target
        wins = others & (with_bonus >= exact_own[sessions])
        rank += np.bincount(sessions[wins], minlength=len(vectors))
        equal = others & (with_bonus == exact_own[sessions])
        tied += np.bincount(sessions[equal], minlength=len(vectors))
        unservable = ~self._servable[targets]
        rank[unservable] = self.num_items
        tied[unservable] = self.num_items - int(self._servable.sum())
        return rank, tied - 1


def _left_out(exclude: Sequence[IntArray] | None) -> Pairs:
    if exclude is None or not any(map(len, exclude)):
        return NO_PAIRS
    rows = np.concatenate(exclude)
    return Pairs(np.repeat(np.arange(len(exclude)), [len(part) for part in exclude]), rows, np.zeros(len(rows)))


def _of_sessions(pairs: Pairs, start: int, stop: int) -> Pairs:
    """Those of a part of the batch, in which sessions count from 0 again."""
    if not start and (not len(pairs.sessions) or pairs.sessions[-1] < stop):
        return pairs
    first, last = np.searchsorted(pairs.sessions, (start, stop))
    return Pairs(pairs.sessions[first:last] - start, pairs.rows[first:last], pairs.bonuses[first:last])


def _concatenated(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _best_of(blocks: Sequence[Best], k: int) -> Best:
    """The k best of all blocks."""
    rows, scores = (np.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True))
    order = np.lexsort((rows, -scores))[:, :k]
    return Best(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))
