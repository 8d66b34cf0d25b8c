"""What can score the catalogue for encoded sequences: SR-GNN, and anything that wants to stand beside it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .catalogue import Catalogue, Ranks, Top
from .config import SRGNNConfig
from .errors import InputError
from .loops import FloatArray
from .loops.encoder import Encoder
from .packed import PackedEncoder, State
from .sequence import IntArray
from .trend import as_column

if TYPE_CHECKING:
    from .model import SRGNN


class Scorer(Protocol):
    """Scores all items for non-empty sequences of catalogue rows, already encoded and windowed."""

    @property
    def num_items(self) -> int:
        """V."""

    @property
    def search(self) -> str:
        """How the best items are found, as shown in GET /model."""

    def top_k(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        """The best ``k`` of each; rows in ``exclude[i]`` are left out of answer i. InputError on a bad k."""

    def ranks(self, sequences: Sequence[IntArray], targets: IntArray) -> Ranks:
        """Rank of each target among all items, ties counted against it."""


class SRGNNScorer:
    """SR-GNN in float64 up to the session vector, then the exact catalogue.

    float64 makes batch and single answers agree (see :mod:`srgnn.catalogue`); the encoder is so small that it costs
    nothing beside the catalogue.
    """

    def __init__(self, config: SRGNNConfig, encoder: State, catalogue: Catalogue) -> None:
        self.config = config
        self.encoder = encoder
        self._packed = PackedEncoder(encoder, config)
        self.catalogue = catalogue
        self._items = catalogue.matrix.numpy()

    @classmethod
    def of_model(
        cls, model: "SRGNN", servable: npt.NDArray[np.bool_], trend: FloatArray | None = None
    ) -> "SRGNNScorer":
        """The scorer of a model as it is now; ``servable`` [V]: the items that may be answered; ``trend`` [V]: as a
        last column of the catalogue (:mod:`srgnn.trend`), for which the model's own vectors have a 0."""
        matrix = model.item_matrix().detach().cpu()
        if trend is not None:
            matrix = torch.cat([matrix, torch.from_numpy(as_column(trend))], 1)
        catalogue = Catalogue(matrix, torch.from_numpy(servable))
        return cls(model.config, model.encoder.state_dict(), catalogue)

    @property
    def num_items(self) -> int:
        """V."""
        return self.catalogue.num_items

    @property
    def weights(self) -> Encoder:
        """The encoder's, multiplied out."""
        return self._packed.weights

    def make_ready(self, rows: IntArray) -> None:
        """See :meth:`srgnn.packed.PackedEncoder.make_ready`."""
        self._packed.make_ready(self._items, rows)

    @property
    def search(self) -> str:
        """The catalogue's scan or index."""
        return self.catalogue.search

    @torch.inference_mode()
    def top_k(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        """See :class:`Scorer`."""
        return self.catalogue.top_k(self.session_vectors(sequences), k, exclude)

    @torch.inference_mode()
    def ranks(self, sequences: Sequence[IntArray], targets: IntArray) -> Ranks:
        """See :class:`Scorer`."""
        return self.catalogue.ranks(self.session_vectors(sequences), targets)

    def session_vectors(self, sequences: Sequence[IntArray]) -> Tensor:
        """Float64 [B, D], D numbers as items have them in the catalogue."""
        return torch.from_numpy(self._packed(self._items, sequences)[0])

    def attention(self, sequence: IntArray) -> list[float]:
        """alpha of each click, oldest first: how much it weighs in the global session embedding."""
        alphas: list[float] = self._packed(self._items, [sequence])[1].tolist()
        return alphas


class DenseScorer(ABC):
    """A scorer that can write down all V scores: ``top_k`` and ``ranks`` follow from :meth:`scores`."""

    def __init__(self, num_items: int) -> None:
        self._num_items = num_items

    @property
    def num_items(self) -> int:
        """V."""
        return self._num_items

    @property
    def search(self) -> str:
        """All scores are written down and sorted."""
        return "dense"

    @abstractmethod
    def scores(self, sequences: Sequence[IntArray]) -> npt.NDArray[np.float32]:
        """Float32 [B, V]; -inf for an item that may not be answered."""

    def top_k(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        """See :class:`Scorer`."""
        if not 1 <= k <= self.num_items:
            raise InputError(f"k is {k}: the catalogue has {self.num_items} items, ask for 1 to {self.num_items}")
        scores = self.scores(sequences).copy()
        for i, rows in enumerate(exclude or ()):
            scores[i, rows] = -np.inf
        top = np.stack([top_rows(one, k) for one in scores])
        best = np.take_along_axis(scores, top, axis=1)
        return Top(np.where(np.isneginf(best), -1, top), best)

    def ranks(self, sequences: Sequence[IntArray], targets: IntArray) -> Ranks:
        """See :class:`Scorer`."""
        scores = self.scores(sequences)
        own = np.take_along_axis(scores, targets[:, None], axis=1)
        return Ranks((scores >= own).sum(axis=1), (scores == own).sum(axis=1) - 1)


def top_rows(scores: npt.NDArray[np.floating], k: int) -> IntArray:
    """Rows of the k largest of [V] by (score falling, row rising), without sorting all of them."""
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    rows = np.flatnonzero(scores >= threshold)
    return rows[np.argsort(-scores[rows], kind="stable")[:k]]
