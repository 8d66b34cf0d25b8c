"""Exact search over the item embeddings: the top k of the catalogue, and the rank of a given item.

The answer must not depend on how many sessions were scored together, on the processor or on the kind of scan, or
offline and online would disagree. So a scan only tells which items are *within reach*: rough scores and a bound on
their error (:mod:`srgnn.scan`) rule out whatever cannot be among the best k. The rest, a few dozen, is scored in
float64; ties break by catalogue row. ``-inf`` marks items that may not be answered.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import InputError
from .scan import GROUP, Float32Scan, Quantised, Query, choose_scan, num_groups
from .sequence import IntArray

BLOCK_GROUPS = 1 << 11
SESSIONS_AT_ONCE = 64
"""Rough scores held at once: BLOCK_GROUPS x GROUP x SESSIONS_AT_ONCE, 16 MiB."""
RANK_SCORES = 1 << 22
"""The same for ranks, in scores."""
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


class _Pairs(NamedTuple):
    """M pairs of a session in the batch and a catalogue row."""

    sessions: Tensor
    """int64 [M]."""
    rows: Tensor
    """int64 [M]."""


class Index(Protocol):
    """Names the items within reach without a scan, not all of them for certain: for catalogues too large to scan."""

    @property
    def name(self) -> str:
        """As shown in GET /model."""

    def near(self, vectors: Tensor, k: int, exclude: Sequence[IntArray] | None) -> tuple[Tensor, Tensor]:
        """Float64 [B, d] -> pairs of a session and a row, int64 [M] each; none that may not be answered."""


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
        self._float32 = Float32Scan(self.matrix)
        self.scan = self._float32 if index else choose_scan(self.matrix, quantised)
        self._banned = torch.nonzero(~self.servable).squeeze(1)
        groups = num_groups(self.num_items)
        self._blocks = [slice(i, min(i + BLOCK_GROUPS, groups)) for i in range(0, groups, BLOCK_GROUPS)]
        banned = torch.nn.functional.pad(~self.servable, (0, groups * GROUP - self.num_items), value=True)
        self._banned_in = [
            torch.nonzero(banned[block.start * GROUP : block.stop * GROUP]).squeeze(1) for block in self._blocks
        ]  # rows counted from the block's first, those past the last item among them

    @property
    def search(self) -> str:
        """How the top k are found."""
        return self.index.name if self.index else self.scan.name

    def top_k(self, vectors: Tensor, k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        """Session vectors float64 [B, d] -> the best ``k`` rows; ``exclude[i]`` rows are left out of answer i."""
        if not 1 <= k <= self.num_items:
            raise InputError(f"k is {k}: the catalogue has {self.num_items} items, ask for 1 to {self.num_items}")
        found = []
        for start in range(0, len(vectors), SESSIONS_AT_ONCE):
            part = slice(start, start + SESSIONS_AT_ONCE)
            left_out = exclude[part] if exclude is not None else None
            if self.index:
                reach = _Pairs(*self.index.near(vectors[part], k, left_out))
            else:
                reach = self._within_reach(vectors[part], k, _pairs(left_out) if left_out is not None else _NO_PAIRS)
            found.append(self._best(vectors[part], reach, k))
        rows, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return Top(rows, scores)

    def ranks(self, vectors: Tensor, targets: IntArray) -> Ranks:
        """Rank of ``targets`` [B] for session vectors float64 [B, d]. An item that may not be answered ranks last."""
        wanted = torch.from_numpy(np.asarray(targets, dtype=np.int64))
        size = max(1, RANK_SCORES // self.num_items)
        blocks = zip(torch.split(vectors, size), torch.split(wanted, size), strict=True)
        rank, ties = zip(*(self._ranks_of_block(*block) for block in blocks), strict=True)
        return Ranks(torch.cat(rank).numpy(), torch.cat(ties).numpy())

    def _within_reach(self, vectors: Tensor, k: int, excluded: _Pairs) -> _Pairs:
        """Every item that may be among the best k of its session.

        The best item of a group scores at least its rough score less the error, and no item more than its rough score
        plus the error. So the k-th largest of the former is a floor that the best k do not fall below.
        """
        query = self.scan.query(vectors)
        largest = torch.full((len(vectors), k), -torch.inf)  # [b, k] of all lower bounds so far
        found = []
        for block, banned in zip(self._blocks, self._banned_in, strict=True):
            rough = self._rough(query, block, banned, excluded)  # [b, G, GROUP]
            error = self.scan.error(query, block)  # [b, G]
            best = _scaled(rough.amax(dim=2), self.scan.scales(block))  # [b, G]
            lower = best - error if best.shape[1] >= k else self._all_lower(rough, block, error)
            largest = torch.cat([largest, lower], dim=1).topk(k, dim=1).values
            floor = largest[:, -1:]  # [b, 1]
            sessions, groups = torch.nonzero((best + error >= floor) & ~best.isneginf(), as_tuple=True)
            inside = _scaled(rough[sessions, groups].T, self.scan.scales(block)[groups]).T  # [g, GROUP]
            reaches = inside + error[sessions, groups].unsqueeze(1) >= floor[sessions]
            those, places = torch.nonzero(reaches & ~inside.isneginf(), as_tuple=True)
            found.append(_Pairs(sessions[those], (block.start + groups[those]) * GROUP + places))
        return _Pairs(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _rough(self, query: Query, block: slice, banned: Tensor, excluded: _Pairs) -> Tensor:
        """Unscaled scores of one block, the type's lowest number where there is no answer: [b, G, GROUP]."""
        rough = self.scan.rough(query, block)
        flat = rough.view(len(rough), -1)
        flat.index_fill_(1, banned, _lowest(rough))
        if len(excluded.rows):
            start, stop = block.start * GROUP, block.stop * GROUP
            inside = (excluded.rows >= start) & (excluded.rows < stop)
            flat[excluded.sessions[inside], excluded.rows[inside] - start] = _lowest(rough)
        return rough

    def _all_lower(self, rough: Tensor, block: slice, error: Tensor) -> Tensor:
        """Lower bounds of all items, where a block has fewer than k groups: [b, G * GROUP]."""
        scores = _scaled(rough.transpose(1, 2), self.scan.scales(block)).transpose(1, 2)
        return (scores - error.unsqueeze(2)).flatten(1)

    def _best(self, vectors: Tensor, reach: _Pairs, k: int) -> tuple[IntArray, npt.NDArray[np.float32]]:
        """The k best of those within reach, by (exact score falling, row rising)."""
        parts = zip(
            torch.split(reach.rows, EXACT_ROWS_AT_ONCE), torch.split(reach.sessions, EXACT_ROWS_AT_ONCE), strict=True
        )
        exact = [_exact(self.matrix[rows], vectors[sessions]) for rows, sessions in parts]
        scores, rows, sessions = torch.cat(exact).numpy(), reach.rows.numpy(), reach.sessions.numpy()
        order = np.lexsort((rows, -scores, sessions))
        counts = np.bincount(sessions, minlength=len(vectors))
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept, place = order[place < k], place[place < k]
        top_rows = np.full((len(vectors), k), -1)
        top_scores = np.full((len(vectors), k), -np.inf, np.float32)
        top_rows[sessions[kept], place] = rows[kept]
        top_scores[sessions[kept], place] = scores[kept]
        return top_rows, top_scores

    def _ranks_of_block(self, vectors: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        query, everything = self._float32.query(vectors), slice(0, num_groups(self.num_items))
        scores = self._float32.rough(query, everything).view(len(vectors), -1)[:, : self.num_items]
        scores.index_fill_(1, self._banned, -torch.inf)
        own = _exact(self.matrix[targets], vectors).unsqueeze(1)  # [b, 1]
        # twice, so that rounding the borders cannot matter
        error = 2 * self._float32.error(query, everything).amax(dim=1, keepdim=True).double()
        low, high = (own - error).float(), (own + error).float()
        above, from_low = _count(scores > high), _count(scores >= low)
        rank, tied = above + 1, torch.ones_like(above)  # between the borders: as a rule the target alone
        for i in torch.nonzero(from_low - above > 1).flatten().tolist():
            near = torch.nonzero((scores[i] >= low[i]) & (scores[i] <= high[i])).flatten()
            exact = _exact(self.matrix[near], vectors[i])
            rank[i] = above[i] + int((exact >= own[i]).sum())
            tied[i] = int((exact == own[i]).sum())
        unservable = ~self.servable[targets]
        rank[unservable] = self.num_items
        tied[unservable] = self.num_items - int(self.servable.sum())
        return rank, tied - 1


_NO_PAIRS = _Pairs(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


def _pairs(exclude: Sequence[IntArray]) -> _Pairs:
    sessions = np.repeat(np.arange(len(exclude)), [len(rows) for rows in exclude])
    if not len(sessions):
        return _NO_PAIRS
    return _Pairs(torch.from_numpy(sessions), torch.from_numpy(np.concatenate(exclude)))


def _exact(items: Tensor, vectors: Tensor) -> Tensor:
    """Float64 products of float32 items [..., d] and vectors [..., d]: [...].

    Not a matrix product: that one rounds a row differently at the end of a block, and equal items would not tie.
    """
    return (items.double() * vectors).sum(-1)


def _count(flags: Tensor) -> Tensor:
    """True entries a row of bool [b, V]: int64 [b]. Summing into int64 at once takes twenty times as long."""
    return flags.sum(1, dtype=torch.int32).long()


def _scaled(rough: Tensor, scales: Tensor) -> Tensor:
    """Float32 scores of unscaled ones, ``-inf`` where there is no answer."""
    return (rough * scales).masked_fill_(rough == _lowest(rough), -torch.inf)


def _lowest(rough: Tensor) -> float:
    return -torch.inf if rough.is_floating_point() else torch.iinfo(rough.dtype).min
