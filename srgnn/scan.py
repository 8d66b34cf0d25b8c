"""Rough scores of the whole catalogue, with a proven bound on their error: what :mod:`srgnn.catalogue` searches in.

Two ways to the same answer, chosen once when a model is loaded: float32, and int8 where the processor multiplies int8
natively (VNNI), which reads a quarter of the memory and is 4 to 9 times as fast (``benchmarks/catalogue.py``).
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

ROWS_AT_ONCE = 1 << 16
"""Rows of a temporary copy while constants are computed, so that loading a large catalogue stays small."""
ROUNDING = 2.0**-24
"""Relative error of one float32 rounding."""

ScanName = Literal["int8", "float32"]


class Quantised(NamedTuple):
    """``matrix ~ items * scales``, each entry within half a scale."""

    items: Tensor
    """int8 [V, d]."""
    scales: Tensor
    """float32 [V, 1]."""

    def belongs_to(self, matrix: Tensor) -> bool:
        """Whether each entry of ``matrix`` is within half a scale, rounding aside."""
        return all(
            bool(((items.float() * scales - rows).abs() <= 0.501 * scales).all())
            for rows, items, scales in self.blocks(matrix)
        )

    def blocks(self, matrix: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows of ``matrix`` with their items and scales, a part of the catalogue at a time."""
        return zip(*(torch.split(tensor, ROWS_AT_ONCE) for tensor in (matrix, *self)), strict=True)


class Query(NamedTuple):
    """b session vectors, made ready for a scan."""

    vectors: Tensor
    """[b, d]."""
    error: Tensor
    """float64 [b, 1]: bound on \\|rough score - exact score\\|, in units of the rough score."""


class Scan(Protocol):
    """Scores that are cheap and, by no more than :attr:`Query.error`, wrong."""

    @property
    def name(self) -> ScanName:
        """As shown in GET /model."""

    def query(self, vectors: Tensor) -> Query:
        """Float64 [b, d] -> what :meth:`rough` takes."""

    def rough(self, query: Query, start: int, out: Tensor) -> None:
        """Write the scores of the n rows from ``start`` into float32 ``out`` [b, n], each session in its own unit."""


def quantise(matrix: Tensor) -> Quantised:
    """[V, d] -> int8 and scales [V, 1] with ``matrix ~ items * scales``, error at most half a scale."""
    scales = matrix.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127.0
    return Quantised((matrix / scales).round().to(torch.int8), scales)


def choose_scan(matrix: Tensor, quantised: Quantised | None) -> Scan:
    """The fastest one that this processor computes exactly."""
    # torch._int_mm takes the transpose of an [n, 1] matrix for a row and answers garbage (torch 2.13).
    if quantised is None or matrix.shape[1] == 1 or not int8_is_native():
        return Float32Scan(matrix)
    return Int8Scan(matrix, quantised)


def int8_is_native() -> bool:
    """Whether int8 products accumulate in int32. Without VNNI they pass through int16, which saturates."""
    return bool(torch.cpu._is_vnni_supported())


class Float32Scan:
    """Matrix products in float32."""

    name: ScanName = "float32"

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix
        self._error = (matrix.shape[1] + 4) * ROUNDING * _largest_norm(matrix)  # d products, their sum, two conversions

    def query(self, vectors: Tensor) -> Query:
        """See :class:`Scan`."""
        return Query(vectors.float(), _norms(vectors) * self._error)

    def rough(self, query: Query, start: int, out: Tensor) -> None:
        """See :class:`Scan`."""
        torch.mm(query.vectors, self._matrix[start : start + out.shape[1]].T, out=out)


class Int8Scan:
    """Exact integer products of rounded vectors, times each row's scale.

    With v = s q + r for a session vector and e = t p + u for an item, |v e - s t q p| <= |r| |e| + |s q| |u| by
    Cauchy-Schwarz; the largest |e| and |u| of the catalogue are taken once. Rough scores are in units of s.
    """

    name: ScanName = "int8"

    def __init__(self, matrix: Tensor, quantised: Quantised) -> None:
        self._items, scales = quantised
        self._scales = scales.flatten()
        self._largest_norm = _largest_norm(matrix)
        self._largest_residual = _largest_residual(matrix, quantised)

    def query(self, vectors: Tensor) -> Query:
        """See :class:`Scan`."""
        unit = vectors.abs().amax(dim=1, keepdim=True).clamp_min(1e-300) / 127.0  # s
        rounded = (vectors / unit).round()  # q
        residual = _norms(vectors / unit - rounded)  # |r| / s
        length = _norms(rounded)  # |s q| / s
        roundings = 4 * ROUNDING * (length + residual) * self._largest_norm  # int32 -> float32, times scale, the floor
        error = residual * self._largest_norm + length * self._largest_residual + roundings
        return Query(rounded.to(torch.int8), error)

    def rough(self, query: Query, start: int, out: Tensor) -> None:
        """See :class:`Scan`."""
        rows = slice(start, start + out.shape[1])
        out.copy_(torch._int_mm(query.vectors, self._items[rows].T))  # int32 [b, n]
        out.mul_(self._scales[rows])


def _norms(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return norms


def _largest_norm(matrix: Tensor) -> float:
    return max(float(_norms(rows.double()).max()) for rows in torch.split(matrix, ROWS_AT_ONCE))


def _largest_residual(matrix: Tensor, quantised: Quantised) -> float:
    """max over items of |e - t p|."""
    return max(
        float(_norms(rows.double() - items.double() * scales).max()) for rows, items, scales in quantised.blocks(matrix)
    )
