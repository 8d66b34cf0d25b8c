"""Rough scores of the whole catalogue, with a proven bound on their error: what :mod:`srgnn.catalogue` searches in.

Ways to the same answer, one of them chosen when a model is loaded: int8, which reads a quarter of the memory of float32
and is several times as fast (``benchmarks/catalogue.py``), by torch where the processor multiplies int8 natively (VNNI)
and by a loop of ours elsewhere; and float32 where there is no int8 form of the items.

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

from .loops import LANES, Groups, Margins, multiply, rounded

GROUP = 32
"""Rows a group; fixed by the artifact's format."""
GROUPS_AT_ONCE = 1 << 5
"""Groups of a temporary copy while constants are computed: small enough for the cache, so that a million items load in
0.3 s instead of 1.5, and in 0.3 GB less."""
ROUNDING = 2.0**-24
"""Relative error of one float32 rounding."""
FLOAT64_ROUNDINGS = 2.0**-40
"""More than all of float64 in a score of up to 4,096 products, in these bounds and in the exact score they are for."""

NO_SURPLUS = np.empty(0, np.int32)
"""Not by VNNI."""

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

    vectors: Tensor
    """[b, d]."""
    margins: Margins
    """How far off their scores may be."""


class Scan(Protocol):
    """Scores that are cheap and wrong by a known amount at most; each session's are in a unit of its own."""

    @property
    def name(self) -> ScanName:
        """As shown in GET /model."""

    def query(self, vectors: Tensor) -> Query:
        """Float64 [b, d] -> what :meth:`rough` takes."""

    def rough(self, query: Query, groups: slice) -> Tensor:
        """Unscaled scores of these groups: int32 or float32 [b, G, GROUP], anything in the rows past the last item.

        They are in memory of this thread's that its next call of any scan writes over.
        """

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


def choose_scan(matrix: Tensor, quantised: Quantised | None) -> Scan:
    """The fastest one that this processor computes exactly."""
    width = matrix.shape[1]
    if quantised is None:
        return Float32Scan(matrix)
    # torch._int_mm takes the transpose of an [n, 1] matrix for a row and answers garbage (torch 2.13).
    if int8_is_native() and width > 1:
        return Int8Scan(matrix, quantised)
    return CompiledInt8Scan(matrix, quantised) if width >= LANES else Float32Scan(matrix)


def int8_is_native() -> bool:
    """Whether the processor adds up int8 products in int32 (VNNI). Elsewhere torch's take as long as in plain C."""
    return bool(torch.cpu._is_vnni_supported())


class Float32Scan:
    """Matrix products in float32."""

    name: ScanName = "float32"

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix
        longest = _longest(_grouped(matrix))
        self._groups = Groups(np.ones_like(longest), longest, np.zeros_like(longest))
        self._roundings = (matrix.shape[1] + 8) * ROUNDING  # d products, their sum, the vectors themselves

    def query(self, vectors: Tensor) -> Query:
        """See :class:`Scan`."""
        length: FloatArray = np.linalg.norm(vectors.numpy(), axis=1)
        return Query(vectors.float(), Margins(length * self._roundings, np.zeros_like(length), np.ones_like(length)))

    def rough(self, query: Query, groups: slice) -> Tensor:
        """See :class:`Scan`."""
        rows = self._matrix[groups.start * GROUP : groups.stop * GROUP]
        scores = _scratch(len(query.vectors), groups, torch.float32)
        # numpy's BLAS, since torch's takes twice as long on AMD (docs/log.md)
        np.matmul(query.vectors.numpy(), rows.numpy().T, out=scores[:, : len(rows)].numpy())
        return scores.view(len(scores), -1, GROUP)

    def groups(self, groups: slice) -> Groups:
        """See :class:`Scan`."""
        return _part(self._groups, groups)


class Int8Scan:
    """Exact integer products of rounded vectors.

    With v = s q + r for a session vector and e = t p + u for an item of a group with scale t,
    |v e - s t q p| <= |r| |e| + |s q| |u| by Cauchy-Schwarz. Scores are in units of s.
    """

    name: ScanName = "int8"
    native = True
    """Whether the processor multiplies int8."""
    roundings = FLOAT64_ROUNDINGS

    def __init__(self, matrix: Tensor, quantised: Quantised) -> None:
        self.items = quantised.items
        residual = _longest(part - again for part, again, _ in quantised.parts(matrix))
        self.bounds = Groups(quantised.scales.double().numpy(), _longest(_grouped(matrix)), residual)

    def query(self, vectors: Tensor) -> Query:
        """See :class:`Scan`."""
        codes, *margins = rounded(vectors.numpy(), self.roundings)
        return Query(torch.from_numpy(codes), Margins(*margins))

    def rough(self, query: Query, groups: slice) -> Tensor:
        """See :class:`Scan`."""
        scores = _scratch(len(query.vectors), groups, torch.int32)
        self._multiply(query.vectors, self.items[groups.start * GROUP : groups.stop * GROUP], scores)
        return scores.view(len(scores), -1, GROUP)

    def _multiply(self, codes: Tensor, items: Tensor, out: Tensor) -> None:
        torch._int_mm(codes, items.T, out=out)

    def groups(self, groups: slice) -> Groups:
        """See :class:`Scan`."""
        return _part(self.bounds, groups)


class CompiledInt8Scan(Int8Scan):
    """The same products by :func:`srgnn.loops.multiply`: for processors without VNNI."""

    name: ScanName = "int8-compiled"
    native = False

    def _multiply(self, codes: Tensor, items: Tensor, out: Tensor) -> None:
        multiply(codes.numpy(), items.numpy(), NO_SURPLUS, out.numpy())


class _Memory(threading.local):
    """Of one thread, kept: fresh pages for scores cost as much as scoring (docs/log.md)."""

    scores: npt.NDArray[np.int32] = np.empty(0, np.int32)


_memory = _Memory()


def _scratch(sessions: int, groups: slice, dtype: torch.dtype) -> Tensor:
    """[sessions, rows of these groups] of a type of four bytes, for the time being."""
    rows = (groups.stop - groups.start) * GROUP
    if len(_memory.scores) < sessions * rows:
        _memory.scores = np.empty(sessions * rows, np.int32)
    return torch.from_numpy(_memory.scores[: sessions * rows]).view(dtype).view(sessions, rows)


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
