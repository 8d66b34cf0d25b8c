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
from .scan import GROUP, Float32Scan, FloatArray, Quantised, Query, Scan, choose_scan, num_groups
from .sequence import IntArray

SESSIONS_AT_ONCE = 64
SCORES_AT_ONCE = 1 << 22
"""Rough scores held at once, 16 MiB. More leave the cache; fewer mean more blocks for each batch."""
EXACT_ROWS_AT_ONCE = 1 << 15
"""Items scored in float64 at once; more are within reach only where masses of items tie."""


class Top(NamedTuple):
    """The best k items of each session; -1 / -inf where fewer than k may be answered."""

    rows: IntArray
    """[B, k], by falling score, equal scores by row."""
    scores: npt.NDArray[np.float32]
    """[B, k]."""


class Ranks(NamedTuple):
    """Where the target stands among all V items, ties counted against it."""

    rank: IntArray
    """[B]: number of items scoring at least as much as the target, itself included; 1 is best."""
    ties: IntArray
    """[B]: other items with exactly the target's score."""


class Bonus(NamedTuple):
    """What is added to a session's scores of some items, for reasons of its own (:mod:`srgnn.blend`)."""

    rows: IntArray
    """[n] distinct catalogue rows."""
    scores: FloatArray
    """[n]."""


class _Pairs(NamedTuple):
    """M pairs of a session in the batch and a catalogue row."""

    sessions: IntArray
    """[M]."""
    rows: IntArray
    """[M]."""


class _Bonuses(NamedTuple):
    """The bonuses of a batch of sessions, end to end."""

    pairs: _Pairs
    scores: FloatArray
    """[M]."""


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
        self._banned = np.flatnonzero(~self._servable)
        past_the_last = np.arange(self.num_items, num_groups(self.num_items) * GROUP)
        self._unanswerable = np.concatenate([self._banned, past_the_last])  # rising

    @cached_property
    def scan(self) -> Scan:
        """What the top k are searched in, without an index. Made on first use: it reads the whole catalogue."""
        return choose_scan(self.matrix, self._quantised)

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
        bonuses: Sequence[Bonus] | None = None,
    ) -> Top:
        """Session vectors float64 [B, d] -> the best ``k`` rows; ``exclude[i]`` rows are left out of answer i.

        ``bonuses[i]`` is added to scores of session i. Its items are scored exactly in any case, so the search looks
        through the others only, and the answer is as exact as without.
        """
        if not 1 <= k <= self.num_items:
            raise InputError(f"k is {k}: the catalogue has {self.num_items} items, ask for 1 to {self.num_items}")
        found = []
        for start in range(0, len(vectors), SESSIONS_AT_ONCE):
            part = slice(start, start + SESSIONS_AT_ONCE)
            left_out = exclude[part] if exclude is not None else None
            if bonuses is None:
                found.append(self._best(vectors[part], self._reach(vectors[part], k, left_out), k))
                continue
            extra = self._countable(bonuses[part], left_out)
            known = [bonus.rows for bonus in extra]
            if left_out is not None:
                known = [np.concatenate(pair) for pair in zip(known, left_out, strict=True)]
            found.append(self._best(vectors[part], self._reach(vectors[part], k, known), k, _end_to_end(extra)))
        rows, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return Top(rows, scores)

    def ranks(self, vectors: Tensor, targets: IntArray, bonuses: Sequence[Bonus] | None = None) -> Ranks:
        """Rank of ``targets`` [B] for session vectors float64 [B, d]; ``bonuses`` as in :meth:`top_k`.

        An item that may not be answered ranks last.
        """
        wanted = torch.from_numpy(np.asarray(targets, dtype=np.int64))
        size = max(1, SCORES_AT_ONCE // self.num_items)
        found = []
        for start in range(0, len(vectors), size):
            part = slice(start, start + size)
            extra = self._countable(bonuses[part], None) if bonuses is not None else []
            found.append(self._ranks_of_block(vectors[part], wanted[part], _end_to_end(extra)))
        rank, ties = zip(*found, strict=True)
        return Ranks(torch.cat(rank).numpy(), torch.cat(ties).numpy())

    def _countable(self, bonuses: Sequence[Bonus], left_out: Sequence[IntArray] | None) -> list[Bonus]:
        """Without the items that may not be answered, at all or in this answer."""
        countable = []
        for i, bonus in enumerate(bonuses):
            kept = self._servable[bonus.rows]
            if left_out is not None and len(left_out[i]):
                kept &= ~np.isin(bonus.rows, left_out[i])
            countable.append(Bonus(bonus.rows[kept], bonus.scores[kept]))
        return countable

    def _reach(self, vectors: Tensor, k: int, left_out: Sequence[IntArray] | None) -> _Pairs:
        """What may be among the best k of each session; without an index, for certain."""
        if self.index:
            return _Pairs(*self.index.near(vectors, k, left_out))
        return self._within_reach(vectors, k, _pairs(left_out) if left_out is not None else _NO_PAIRS)

    def _within_reach(self, vectors: Tensor, k: int, excluded: _Pairs) -> _Pairs:
        """Every item that may be among the best k of its session.

        The best item of a group scores at least its rough score less the error, and no item more than its rough score
        plus the error. So the k-th largest of the former is a floor that the best k do not fall below.
        """
        query = self.scan.query(vectors)
        largest = torch.full((len(vectors), k), -torch.inf, dtype=torch.float64)  # [b, k] of all lower bounds so far
        found = []
        for block in self._blocks(len(vectors)):
            rough = self._rough(query, block, excluded)  # [b, G, GROUP]
            scales, error = self.scan.scales(block), self.scan.error(query, block)  # [G], [b, G]
            best = _scaled(rough.amax(dim=2).numpy(), scales)  # [b, G]
            if best.shape[1] >= k:
                lower = best - error
            else:  # the bounds of all items instead: [b, G * GROUP]
                lower = (_scaled(rough.numpy(), scales[:, None]) - error[:, :, None]).reshape(len(vectors), -1)
            largest = torch.cat([largest, torch.from_numpy(lower)], dim=1).topk(k, dim=1).values
            floor = largest[:, -1:].numpy().clip(min=LOWEST)  # [b, 1]; -inf never reaches it
            sessions, groups = _places(best + error >= floor)
            inside = _scaled(rough.numpy()[sessions, groups], scales[groups, None])  # [g, GROUP]
            those, places = _places(inside + error[sessions, groups, None] >= floor[sessions])
            found.append(_Pairs(sessions[those], (block.start + groups[those]) * GROUP + places))
        return _Pairs(*map(np.concatenate, zip(*found, strict=True)))

    def _blocks(self, sessions: int) -> Iterator[slice]:
        """Groups to score at once for so many sessions."""
        groups, size = num_groups(self.num_items), max(1, SCORES_AT_ONCE // (GROUP * sessions))
        return (slice(start, min(start + size, groups)) for start in range(0, groups, size))

    def _rough(self, query: Query, block: slice, excluded: _Pairs) -> Tensor:
        """Unscaled scores of one block, the type's lowest number where there is no answer: [b, G, GROUP]."""
        start, stop = block.start * GROUP, block.stop * GROUP
        rough = self.scan.rough(query, block)
        flat = rough.view(len(rough), -1)
        first, last = np.searchsorted(self._unanswerable, (start, stop))
        flat.index_fill_(1, torch.from_numpy(self._unanswerable[first:last] - start), _lowest(rough))
        if len(excluded.rows):
            inside = (excluded.rows >= start) & (excluded.rows < stop)
            flat.numpy()[excluded.sessions[inside], excluded.rows[inside] - start] = _lowest(rough)
        return rough

    def _best(
        self, vectors: Tensor, reach: _Pairs, k: int, bonuses: _Bonuses | None = None
    ) -> tuple[IntArray, npt.NDArray[np.float32]]:
        """The k best of those within reach and those with a bonus, by (exact score falling, row rising)."""
        sessions, rows = reach
        if bonuses is not None:
            sessions, rows = (np.concatenate(pair) for pair in zip(reach, bonuses.pairs, strict=True))
        parts = [slice(start, start + EXACT_ROWS_AT_ONCE) for start in range(0, len(rows), EXACT_ROWS_AT_ONCE)]
        items, v = self.matrix.numpy(), vectors.numpy()
        exact = [_exact(items[rows[part]], v[sessions[part]]) for part in parts]
        scores = np.concatenate([np.empty(0), *exact])
        if bonuses is not None:
            scores[len(reach.rows) :] += bonuses.scores
        order = np.lexsort((rows, -scores, sessions))
        counts = np.bincount(sessions, minlength=len(vectors))
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept, place = order[place < k], place[place < k]
        top_rows = np.full((len(vectors), k), -1)
        top_scores = np.full((len(vectors), k), -np.inf, np.float32)
        top_rows[sessions[kept], place] = rows[kept]
        top_scores[sessions[kept], place] = scores[kept]
        return top_rows, top_scores

    def _ranks_of_block(self, vectors: Tensor, targets: Tensor, bonuses: _Bonuses) -> tuple[Tensor, Tensor]:
        query, everything = self._float32.query(vectors), slice(0, num_groups(self.num_items))
        scores = self._float32.rough(query, everything).view(len(vectors), -1)[:, : self.num_items]
        scores.index_fill_(1, torch.from_numpy(self._banned), -torch.inf)
        items, v = self.matrix.numpy(), vectors.numpy()
        exact_own = _exact(items[targets.numpy()], v)  # [b]
        sessions, rows = bonuses.pairs
        scores.numpy()[sessions, rows] = -np.inf  # counted by themselves, exactly
        with_bonus = _exact(items[rows], v[sessions]) + bonuses.scores  # [M]
        is_target = rows == targets.numpy()[sessions]
        exact_own[sessions[is_target]] = with_bonus[is_target]
        counted_already = np.bincount(sessions[is_target], minlength=len(v))  # [b]: 1 for a target with a bonus
        own = torch.from_numpy(exact_own).unsqueeze(1)  # [b, 1]
        # twice, so that rounding the borders cannot matter
        error = 2 * torch.from_numpy(self._float32.error(query, everything).max(axis=1, keepdims=True))
        low, high = (own - error).float(), (own + error).float()
        above, from_low = _count(scores > high), _count(scores >= low)
        rank, tied = above + 1, torch.ones_like(above)  # between the borders: as a rule the target alone, if at all
        between = (from_low - above).numpy()
        for i in np.flatnonzero(between > 1 - counted_already).tolist():
            near = np.flatnonzero(((scores[i] >= low[i]) & (scores[i] <= high[i])).numpy())
            exact, target = _exact(items[near], v[i]), float(exact_own[i])
            rank[i] = above[i] + int((exact >= target).sum()) + int(counted_already[i])
            tied[i] = int((exact == target).sum()) + int(counted_already[i])
        others = ~is_target
        wins = others & (with_bonus >= exact_own[sessions])
        rank += torch.from_numpy(np.bincount(sessions[wins], minlength=len(v)))
        equal = others & (with_bonus == exact_own[sessions])
        tied += torch.from_numpy(np.bincount(sessions[equal], minlength=len(v)))
        unservable = ~self.servable[targets]
        rank[unservable] = self.num_items
        tied[unservable] = self.num_items - int(self.servable.sum())
        return rank, tied - 1


_NO_PAIRS = _Pairs(np.empty(0, np.int64), np.empty(0, np.int64))


def _pairs(exclude: Sequence[IntArray]) -> _Pairs:
    sessions = np.repeat(np.arange(len(exclude)), [len(rows) for rows in exclude])
    if not len(sessions):
        return _NO_PAIRS
    return _Pairs(sessions, np.concatenate(exclude))


def _end_to_end(bonuses: Sequence[Bonus]) -> _Bonuses:
    pairs = _pairs([bonus.rows for bonus in bonuses])
    return _Bonuses(pairs, np.concatenate([np.empty(0), *(bonus.scores for bonus in bonuses)]))


def _exact(items: npt.NDArray[np.float32], vectors: FloatArray) -> FloatArray:
    """Float64 products of items [n, d] and vectors [n, d] or [d]: [n].

    Not a matrix product: that one rounds a row differently at the end of a block, and equal items would not tie.
    """
    products: FloatArray = (items * vectors).sum(axis=1)  # float32 times float64 is float64
    return products


def _count(flags: Tensor) -> Tensor:
    """True entries a row of bool [b, V]: int64 [b]. Summing into int64 at once takes twenty times as long."""
    return flags.sum(1, dtype=torch.int32).long()


def _scaled(rough: npt.NDArray[np.int32] | npt.NDArray[np.float32], scales: FloatArray) -> FloatArray:
    """Scores of unscaled ones, ``-inf`` where there is no answer."""
    scores: FloatArray = rough * scales
    scores[rough == _LOWEST_OF[rough.dtype]] = -np.inf
    return scores


def _places(flags: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """``np.nonzero`` of a matrix, in a fifth of its time."""
    rows, columns = np.divmod(np.flatnonzero(flags), flags.shape[1])
    return rows, columns


def _lowest(rough: Tensor) -> float:
    return _LOWEST_OF[rough.numpy().dtype]


_LOWEST_OF: dict[np.dtype[Any], float] = {
    np.dtype(np.int32): np.iinfo(np.int32).min,
    np.dtype(np.float32): -np.inf,
}
"""What marks an item that may not be answered among unscaled scores."""
LOWEST = float(np.finfo(np.float64).min)
