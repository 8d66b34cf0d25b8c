"""Exact search over the item embeddings: the top k of the catalogue, and the rank of a given item.

The answer must not depend on how many sessions were scored together, or offline and online would disagree. A float32
matrix product does depend on it, in the last bits. So float32 only *finds* candidates; their scores are recomputed in
float64, ties break by catalogue row, and a session whose candidates float32 cannot separate with certainty from the
rest is scored in float64 throughout. ``-inf`` marks items that may not be answered.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import InputError
from .sequence import IntArray

GROUP = 64
"""Items a group; ``topk`` over group maxima reads 1/64 of what ``topk`` over all scores would."""
BLOCK_SCORES = 1 << 22
"""Scores held at once: 16 MiB of float32."""


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


def quantise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """[V, d] -> int8 [V, d] and float32 scales [V, 1] with ``matrix ~ int8 * scale``, error at most half a scale."""
    scales = matrix.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127.0
    return (matrix / scales).round().to(torch.int8), scales


class Catalogue:
    """V item embeddings and which of them may be answered (``servable`` [V] bool: items with training clicks)."""

    def __init__(self, matrix: Tensor, servable: Tensor) -> None:
        self.num_items, self.width = matrix.shape
        padding = -self.num_items % GROUP
        self.matrix = torch.nn.functional.pad(matrix.detach().float(), (0, 0, 0, padding))  # [V', d]
        self.servable = torch.nn.functional.pad(servable.bool(), (0, padding), value=False)  # [V']
        self._banned = torch.nonzero(~self.servable).squeeze(1)
        self._largest_norm = float(self.matrix.norm(dim=1).max())

    def top_k(self, vectors: Tensor, k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        """Session vectors float64 [B, d] -> the best ``k`` rows; ``exclude[i]`` rows are left out of answer i."""
        if not 1 <= k <= self.num_items:
            raise InputError(f"k is {k}: the catalogue has {self.num_items} items, ask for 1 to {self.num_items}")
        found = [self._top_of_block(*block, k) for block in self._blocks(vectors, exclude)]
        rows, scores = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        return Top(rows, scores)

    def ranks(self, vectors: Tensor, targets: IntArray) -> Ranks:
        """Rank of ``targets`` [B] for session vectors float64 [B, d]. An item that may not be answered ranks last."""
        wanted = torch.from_numpy(np.asarray(targets, dtype=np.int64))
        found, start = [], 0
        for block, scores in self._blocks(vectors, None):
            found.append(self._ranks_of_block(block, scores, wanted[start : start + len(block)]))
            start += len(block)
        rank, ties = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        return Ranks(rank, ties)

    def _blocks(self, vectors: Tensor, exclude: Sequence[IntArray] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """(vectors float64 [b, d], masked float32 scores [b, V']) for a few sessions at a time."""
        size = max(1, BLOCK_SCORES // len(self.matrix))
        for start in range(0, len(vectors), size):
            block = vectors[start : start + size]
            scores = block.float() @ self.matrix.T
            scores.index_fill_(1, self._banned, -torch.inf)
            if exclude is not None:
                _mask(scores, exclude[start : start + size])
            yield block, scores

    def _rescore(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """Float64 scores [b, c] of candidate rows [b, c]."""
        return _exact(self.matrix[rows], vectors.unsqueeze(1))  # [b, c, d] and [b, 1, d]

    def _float32_error(self, vectors: Tensor) -> Tensor:
        """Bound [b, 1] on |float32 score - float64 score|: d + 2 roundings of at most |v| |e| in all."""
        per_unit = (self.width + 2) * 2.0**-24 * self._largest_norm
        norms: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return norms * per_unit

    def _top_of_block(self, vectors: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        rows, rough = _candidates(scores, min(2 * k + 8, self.num_items))
        top_rows, top_scores = _best(rows, self._rescore(vectors, rows), rough.isneginf(), k)
        if rows.shape[1] < self.num_items:
            outside = rough[:, -1:].double() + self._float32_error(vectors)
            unsure = torch.nonzero((top_scores[:, -1:] <= outside).squeeze(1) & ~rough[:, -1].isneginf())
            for i in unsure.flatten().tolist():
                top_rows[i], top_scores[i] = self._top_of_one(vectors[i : i + 1], scores[i : i + 1], k)
        return top_rows, top_scores.float()

    def _top_of_one(self, vector: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The slow, certain way, for one session: every item in float64."""
        rows = torch.arange(self.num_items).unsqueeze(0)
        exact = _exact(self.matrix[: self.num_items], vector).unsqueeze(0)
        top_rows, top_scores = _best(rows, exact, scores[:, : self.num_items].isneginf(), k)
        return top_rows[0], top_scores[0]

    def _ranks_of_block(self, vectors: Tensor, scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        own = self._rescore(vectors, targets.unsqueeze(1))  # [b, 1]
        error = 2 * self._float32_error(vectors)  # twice, so that rounding the borders cannot matter
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


def _exact(items: Tensor, vectors: Tensor) -> Tensor:
    """Float64 products of float32 items [..., d] and vectors [..., d]: [...].

    Not a matrix product: that one rounds a row differently at the end of a block, and equal items would not tie.
    """
    return (items.double() * vectors).sum(-1)


def _count(flags: Tensor) -> Tensor:
    """True entries a row of bool [b, V']: int64 [b]. Summing into int64 at once takes twenty times as long."""
    return flags.sum(1, dtype=torch.int32).long()


def _mask(scores: Tensor, exclude: Sequence[IntArray]) -> None:
    sessions = np.repeat(np.arange(len(exclude)), [len(rows) for rows in exclude])
    if len(sessions):
        scores[torch.from_numpy(sessions), torch.from_numpy(np.concatenate(exclude))] = -torch.inf


def _candidates(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows and scores [b, count] of the largest of [b, V'], by falling score: they lie in ``count`` best groups."""
    groups = scores.view(len(scores), -1, GROUP)
    best = groups.amax(dim=2).topk(min(count, groups.shape[1]), dim=1).indices  # [b, g]
    inside = groups.gather(1, best.unsqueeze(2).expand(-1, -1, GROUP)).flatten(1)  # [b, g * 64]
    rough, place = inside.topk(count, dim=1)
    rows = best.gather(1, place // GROUP) * GROUP + place % GROUP
    return rows, rough


def _best(rows: Tensor, scores: Tensor, banned: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of candidates [b, c] by (score falling, row rising); -1 / -inf where banned."""
    scores = scores.masked_fill(banned, -torch.inf)
    rows, order = rows.sort(dim=1)
    scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    rows = rows.gather(1, order).masked_fill(scores.isneginf(), -1)
    return rows[:, :k], scores[:, :k]
