"""An index over a catalogue too large to scan: an inverted file (faiss) that names the items worth scoring exactly.

Items are grouped into lists around centroids. A search visits the lists whose centroids score highest and ranks their
items by four-bit codes, one a dimension; the best CANDIDATES go to :class:`srgnn.catalogue.Catalogue`, which
scores them in float64. What is lost are items of lists not visited, and how many lists are visited is chosen on real
sessions (``srgnn index``).

Items that may not be answered are not in the index, and excluded ones are passed over inside the search. A session is
always searched alone, with lists chosen by float64 scores: so its answer does not depend on its batch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import ArtifactError, ConfigError, InputError
from .progress import progress
from .sequence import IntArray

CANDIDATES = 1000
"""Items of a session scored exactly. One number for every k up to a tenth of it: a smaller k is a prefix."""
CODES = 16
"""Values of a four-bit code; as many items are needed to learn them."""
TRAINED_ON = 40
"""Items a list that centroids are learned from."""
ITEMS_AT_ONCE = 1 << 16


class IVF:
    """An inverted file. ``probes``: lists visited for a session."""

    name = "ivf"

    def __init__(self, index: Any) -> None:
        self._faiss = _faiss()
        self._index = index
        centroids = index.quantizer.reconstruct_n(0, index.nlist)
        self._centroids = torch.from_numpy(centroids).double().T.contiguous()  # [d, lists]

    @property
    def lists(self) -> int:
        """How many there are."""
        return int(self._index.nlist)

    @property
    def probes(self) -> int:
        """Lists visited for a session."""
        return int(self._index.nprobe)

    @probes.setter
    def probes(self, probes: int) -> None:
        self._index.nprobe = probes

    def near(self, vectors: Tensor, k: int, exclude: Sequence[IntArray] | None) -> tuple[IntArray, IntArray]:
        """Pairs of a session in the batch and a row worth scoring, [M] each; see :class:`srgnn.catalogue.Index`.

        A session for which fewer than ``k`` items are found is searched again in all lists.
        """
        self._faiss.omp_set_num_threads(1)  # counts for the calling thread only; one session cannot use more
        to_centroids = vectors @ self._centroids  # [B, lists]
        found = []
        for i, scores in enumerate(to_centroids):
            left_out = self._selector(exclude[i]) if exclude is not None and len(exclude[i]) else None
            rows = self._search(vectors[i], scores, max(CANDIDATES, 10 * k), self.probes, left_out)
            if len(rows) < k and self.probes < self.lists:
                rows = self._search(vectors[i], scores, max(CANDIDATES, 10 * k), self.lists, left_out)
            found.append(rows)
        sessions = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
        return sessions, np.concatenate(found)

    def _selector(self, rows: IntArray) -> Any:
        """All items but ``rows``."""
        inner = self._faiss.IDSelectorBatch(np.ascontiguousarray(rows, dtype=np.int64))
        selector = self._faiss.IDSelectorNot(inner)
        selector.kept_alive = inner  # C++ holds a pointer to it
        return selector

    def _search(self, vector: Tensor, scores: Tensor, candidates: int, probes: int, selector: Any) -> IntArray:
        """Rows of the best candidates for a vector [d] with these scores [lists] of the centroids."""
        to_lists, lists = scores.topk(probes)
        arrays = vector.float().numpy(), lists.numpy(), to_lists.float().numpy()
        candidates = min(candidates, self._index.ntotal)
        rows, rough = np.empty(candidates, np.int64), np.empty(candidates, np.float32)
        parameters = self._faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        query, numbers, products, best, found = map(self._faiss.swig_ptr, (*arrays, rough, rows))
        # The method's own wrapper takes no parameters (faiss 1.15); this is what it wraps.
        self._index.search_preassigned_c(1, query, candidates, numbers, products, best, found, False, parameters)
        return rows[rows >= 0]

    def write(self, file: Path) -> None:
        """Write what :meth:`read` reads."""
        self._faiss.write_index(self._index, str(file))

    @classmethod
    def read(cls, file: Path, servable: npt.NDArray[np.bool_], width: int) -> "IVF":
        """The index of the items that are ``servable`` [V], of ``width`` d. Raises ArtifactError."""
        faiss = _faiss()
        # Nothing in a file is longer than the file; faiss would take a damaged length at its word, up to 1 TB. The
        # largest it asks for is a table of 16 floats for each of a centroid.
        limit = 16 * file.stat().st_size
        faiss.set_deserialization_vector_byte_limit(limit)
        faiss.set_deserialization_loop_limit(limit)
        try:
            index = faiss.read_index(str(file))
        except (RuntimeError, MemoryError) as error:
            raise ArtifactError(f"{file} cannot be read: {str(error)[:200] or type(error).__name__}") from error
        fits = _is_built_here(faiss, index, width) and index.ntotal == servable.sum()
        if not fits or not np.array_equal(_holds(faiss, index, len(servable)), servable):
            raise ArtifactError(f"{file} is not of this catalogue: build it again with `srgnn index`")
        return cls(index)


def build(matrix: Tensor, servable: npt.NDArray[np.bool_], lists: int | None = None, *, shown: bool = True) -> IVF:
    """Index the ``servable`` [V] rows of float32 ``matrix`` [V, d], in the square root of their number of lists."""
    faiss = _faiss()
    rows = np.flatnonzero(servable)
    lists = lists or max(1, round(len(rows) ** 0.5))
    if not 1 <= lists <= len(rows) or len(rows) < CODES:
        raise InputError(
            f"{lists} lists for {len(rows)} items that may be answered: an index needs at least {CODES} items and no "
            "more lists than items; a catalogue this small needs none"
        )
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = _empty_index(faiss, matrix.shape[1], lists)
    sample = np.random.default_rng(0).choice(rows, min(len(rows), max(TRAINED_ON * lists, 1 << 14)), replace=False)
    with progress("index, items", len(rows), shown=shown) as advance:
        index.train(matrix[np.sort(sample)].numpy())
        for start in range(0, len(rows), ITEMS_AT_ONCE):
            part = rows[start : start + ITEMS_AT_ONCE]
            index.add_with_ids(matrix[part].numpy(), part)
            advance(len(part))
    return IVF(index)


def choose_probes(index: IVF, vectors: Tensor, best: IntArray, recall: float) -> float:
    """Set the smallest ``probes`` that find this share of ``best`` [B, k] for vectors [B, d]; the share found.

    Raises InputError where visiting all lists does not.
    """

    def found(probes: int) -> float:
        index.probes = probes
        return _recall(index, vectors, best)

    low, high = 0, 1  # low is too few
    while found(high) < recall:
        if high == index.lists:
            raise InputError(
                f"recall {recall} is not reached in all {high} lists (found {found(high):.4f}): ask for less"
            )
        low, high = high, min(2 * high, index.lists)
    while high - low > max(1, high // 64):
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) >= recall else (middle, high)
    return found(high)


def _recall(index: IVF, vectors: Tensor, best: IntArray) -> float:
    """Share of the rows ``best`` [B, k], -1 for none, that ``index`` names."""
    hits = 0
    for i in range(len(vectors)):
        _, rows = index.near(vectors[i : i + 1], best.shape[1], None)
        hits += len(np.intersect1d(rows, best[i]))
    return hits / int((best >= 0).sum())


def _empty_index(faiss: Any, width: int, lists: int) -> Any:
    """Not trained. A code for each dimension: with one for two, 10 M items lost 0.9 % even in all lists."""
    index = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(width), width, lists, width, 4, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True  # or long centroids would draw in everything
    index.cp.max_points_per_centroid = TRAINED_ON
    for clustering in (index.cp, index.pq.cp):
        clustering.min_points_per_centroid = 1  # says nothing about small catalogues
    return index


SHAPE = ("d", "metric_type", "by_residual", "code_size", "M", "M2", "nbits", "bbs", "implem", "qbs", "qbs2", "skip")
"""What faiss reads from a file and believes, though with other values than an index is built with it cannot search."""


def _is_built_here(faiss: Any, index: Any, width: int) -> bool:
    """Whether :func:`build` makes such an index."""
    if not isinstance(index, faiss.IndexIVFPQFastScan) or not 1 <= index.nprobe <= index.nlist <= index.ntotal:
        return False
    quantizer, expected = faiss.downcast_index(index.quantizer), _empty_index(faiss, width, index.nlist)
    return (
        isinstance(quantizer, faiss.IndexFlatIP)
        and (quantizer.d, quantizer.ntotal) == (width, index.nlist)
        and all(getattr(index, name) == getattr(expected, name) for name in SHAPE)
    )


def _holds(faiss: Any, index: Any, num_items: int) -> npt.NDArray[np.bool_]:
    """Which rows are in the index: bool [V]; none where an id is no row."""
    held = np.zeros(num_items, bool)
    for number in range(index.nlist):
        size = index.invlists.list_size(number)
        ids = faiss.rev_swig_ptr(index.invlists.get_ids(number), size) if size else np.zeros(0, np.int64)
        if size and not (ids.min() >= 0 and ids.max() < num_items):
            return np.zeros(num_items, bool)
        held[ids] = True
    return held


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ConfigError(
            "an index for large catalogues needs faiss, which is missing: pip install 'srgnn[ann]', or use an artifact "
            "without index.faiss"
        ) from error
    return faiss
