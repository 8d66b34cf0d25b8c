"""The best rough score of each group of items, with a proven bound on its error: what a catalogue is searched in.

Ways to the same answer, one of them chosen when a model is loaded: int8, which reads a quarter of the memory of float32
and is several times as fast (``benchmarks/catalogue.py``), by the processor's own products of int8 (VNNI) or without
them; and float32 where there is no int8 form of the items.

The bound is kept for groups of neighbouring rows, each with its own scale: one item of unusual length then loosens
the bound of its own group only. Shape letters: G groups, of the whole catalogue or of the part asked for.
"""

import threading
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .loops import IntArray, Rough
from .loops.layout import BYTES, GROUP, LANES, LOW, NEVER, Asking, Searched, asking, offsets_of
from .loops.products import best_of_groups
from .loops.search import Groups, Margins, best_of_scores, rounded

GROUPS_AT_ONCE = 1 << 5
"""Groups of a temporary copy while constants are computed: small enough for the cache, so that a million items load in
0.3 s instead of 1.5, and in 0.3 GB less."""
ROUNDING = 2.0**-24
"""Relative error of one float32 rounding."""
FLOAT64_ROUNDINGS = 2.0**-40
"""More than all of float64 in a score of up to 4,096 products, in these bounds and in the exact score they are for."""

NO_ROWS = np.empty(0, np.int64)
NO_CODES = np.empty((0, 0), np.int8)

FloatArray = npt.NDArray[np.float64]
ScanName = Literal["int8", "int8-compiled", "float32"]


class Quantised(NamedTuple):
    """``matrix ~ items * scales``, each entry within half a scale."""

    items: Tensor
    """int8 [G * GROUP, d]; zeros in the rows past the last item."""
    scales: Tensor
    """float32 [G]."""

    def belongs_to(self, matrix: Tensor) -> bool:
        """Whether each entry of ``matrix`` [V, d] is within half a scale, rounding aside."""
        return all(bool(((part - again).abs() <= 0.501 * scales).all()) for part, again, scales in self.parts(matrix))

    def parts(self, matrix: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """A part of the catalogue at a time, float32: the matrix and what it was rounded to, both [g, GROUP, d], and
        the scales [g, 1, 1]."""
        for part, items, scales in zip(
            _grouped(matrix),
            torch.split(self.items.view(-1, GROUP, self.items.shape[1]), GROUPS_AT_ONCE),
            torch.split(self.scales.view(-1, 1, 1), GROUPS_AT_ONCE),
            strict=True,
        ):
            yield part, items.float() * scales, scales


class Query(NamedTuple):
    """b session vectors, made ready for a scan."""

    asking: Asking
    margins: Margins
    """How far off their scores may be."""


class Scan(Protocol):
    """Scores that are cheap and wrong by a known amount at most; each session's are in a unit of its own."""

    searched: Searched
    low: float
    """No answer has a rough score that is not above it."""
    at_once: int
    """Numbers a group that are held for each session."""

    @property
    def name(self) -> ScanName:
        """As shown in GET /model."""

    def query(self, vectors: Tensor) -> Query:
        """Float64 [b, d] -> what :meth:`bests` takes."""

    def bests(self, query: Query, groups: slice) -> Rough:
        """The best unscaled score in each of these groups: int32 or float32 [b, G]."""

    def groups(self, groups: slice) -> Groups:
        """What the scores of these groups are worth."""


def quantise(matrix: Tensor) -> Quantised:
    """[V, d] -> int8 items and a scale for each group, error at most half a scale."""
    scales = torch.cat([part.abs().amax(dim=(1, 2)).clamp_min(1e-12) / 127.0 for part in _grouped(matrix)])
    rounded = [
        (part / scale.view(-1, 1, 1)).round().to(torch.int8)
        for part, scale in zip(_grouped(matrix), torch.split(scales, GROUPS_AT_ONCE), strict=True)
    ]
    return Quantised(torch.cat(rounded).flatten(0, 1), scales)


def num_groups(num_items: int) -> int:
    """G of V items; the last group may be partly empty."""
    return -(-num_items // GROUP)


def choose_scan(matrix: Tensor, quantised: Quantised | None, unanswerable: IntArray = NO_ROWS) -> Scan:
    """The fastest one that this processor computes exactly; ``unanswerable``: rows that are never answered."""
    if quantised is None or matrix.shape[1] < LANES:
        return Float32Scan(matrix, unanswerable)
    return (Int8Scan if int8_is_native() else CompiledInt8Scan)(matrix, quantised, unanswerable)


def int8_is_native() -> bool:
    """Whether the processor adds up int8 products in int32 (VNNI)."""
    return bool(torch.cpu._is_vnni_supported())


class Float32Scan:
    """Matrix products in float32."""

    name: ScanName = "float32"
    low = -np.inf
    at_once = GROUP

    def __init__(self, matrix: Tensor, unanswerable: IntArray = NO_ROWS) -> None:
        longest = _longest(_grouped(matrix))
        offsets = np.zeros(len(longest) * GROUP, np.int32)
        offsets[unanswerable] = NEVER
        self.searched = Searched(matrix.numpy(), offsets)
        self._groups = Groups(np.ones_like(longest), longest, np.zeros_like(longest))
        self._roundings = (matrix.shape[1] + 8) * ROUNDING  # d products, their sum, the vectors themselves

    def query(self, vectors: Tensor) -> Query:
        """See :class:`Scan`."""
        length: FloatArray = np.linalg.norm(vectors.numpy(), axis=1)
        margins = Margins(length * self._roundings, np.zeros_like(length), np.ones_like(length))
        return Query(Asking(NO_CODES, vectors.float().numpy()), margins)

    def rough(self, query: Query, groups: slice) -> npt.NDArray[np.float32]:
        """Unscaled scores of these groups, float32 [b, G * GROUP], anything in the rows past the last item.

        They are in memory of this thread's that its next call writes over.
        """
        vectors, rows = query.asking.words, self.searched.items[groups.start * GROUP : groups.stop * GROUP]
        scores = _scratch(len(vectors), (groups.stop - groups.start) * GROUP)
        # numpy's BLAS, since torch's takes twice as long on AMD (docs/log.md)
        np.matmul(vectors, rows.T, out=scores[:, : len(rows)])
        return scores

    def bests(self, query: Query, groups: slice) -> Rough:
        """See :class:`Scan`."""
        rows = slice(groups.start * GROUP, groups.stop * GROUP)
        unanswerable = np.flatnonzero(self.searched.offsets[rows])
        return best_of_scores(self.rough(query, groups), len(self.searched.items[rows]), unanswerable)

    def groups(self, groups: slice) -> Groups:
        """See :class:`Scan`."""
        return _part(self._groups, groups)


class Int8Scan:
    """Exact integer products of rounded vectors.

    With v = s q + r for a session vector and e = t p + u for an item of a group with scale t,
    |v e - s t q p| <= |r| |e| + |s q| |u| by Cauchy-Schwarz. Scores are in units of s.
    """

    name: ScanName = "int8"
    has_instruction = True
    """Whether the processor multiplies int8."""
    low = LOW
    at_once = 1
    roundings = FLOAT64_ROUNDINGS

    def __init__(self, matrix: Tensor, quantised: Quantised, unanswerable: IntArray = NO_ROWS) -> None:
        codes = quantised.items.numpy()
        self.native = self.has_instruction and codes.shape[1] >= BYTES
        past_the_last = np.arange(len(matrix), len(codes))
        self.searched = Searched(codes, offsets_of(codes, np.union1d(unanswerable, past_the_last), self.native))
        residual = _longest(part - again for part, again, _ in quantised.parts(matrix))
        self.bounds = Groups(quantised.scales.double().numpy(), _longest(_grouped(matrix)), residual)

    def query(self, vectors: Tensor) -> Query:
        """See :class:`Scan`."""
        codes, *margins = rounded(vectors.numpy(), self.roundings)
        return Query(Asking(*asking(codes, self.native)), Margins(*margins))

    def bests(self, query: Query, groups: slice) -> Rough:
        """See :class:`Scan`."""
        return best_of_groups(*self.searched, *query.asking, groups.start, groups.stop - groups.start)

    def groups(self, groups: slice) -> Groups:
        """See :class:`Scan`."""
        return _part(self.bounds, groups)


class CompiledInt8Scan(Int8Scan):
    """The same for processors without VNNI."""

    name: ScanName = "int8-compiled"
    has_instruction = False


class _Memory(threading.local):
    """Of one thread, kept: fresh pages for scores cost as much as scoring (docs/log.md)."""

    scores: npt.NDArray[np.float32] = np.empty(0, np.float32)


_memory = _Memory()


def _scratch(sessions: int, rows: int) -> npt.NDArray[np.float32]:
    """[sessions, rows], for the time being."""
    if len(_memory.scores) < sessions * rows:
        _memory.scores = np.empty(sessions * rows, np.float32)
    return _memory.scores[: sessions * rows].reshape(sessions, rows)


def _part(whole: Groups, groups: slice) -> Groups:
    return Groups(whole.scales[groups], whole.longest[groups], whole.residual[groups])


def _grouped(matrix: Tensor) -> Iterator[Tensor]:
    """[V, d] as [g, GROUP, d], a part at a time, zeros past the last item."""
    for part in torch.split(matrix, GROUPS_AT_ONCE * GROUP):
        padded = torch.nn.functional.pad(part, (0, 0, 0, -len(part) % GROUP))
        yield padded.view(-1, GROUP, matrix.shape[1])


def _longest(parts: Iterator[Tensor]) -> FloatArray:
    """Length of the longest row of each group: float64 [G]."""
    lengths = [torch.linalg.vector_norm(part.double(), dim=2).amax(dim=1).numpy() for part in parts]
    return np.concatenate(lengths)
