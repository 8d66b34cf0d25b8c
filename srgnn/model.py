"""SR-GNN: session graph -> session vector, scored against every item of the catalogue."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import SRGNNConfig as SRGNNConfig
from .conv import GatedSessionConv
from .readout import SoftAttentionReadout
from .session_batch import SessionBatch
from .unit import unit_rows


class SessionEncoder(nn.Module):
    """Everything between item embeddings and the session vector; small, independent of the catalogue's size."""

    def __init__(self, config: SRGNNConfig, max_length: int) -> None:
        super().__init__()
        self.steps = config.steps
        self.conv = GatedSessionConv(config.hidden_size)
        self.positions = nn.Embedding(max_length, config.hidden_size) if config.reversed_positions else None
        self.readout = SoftAttentionReadout(config.hidden_size, hybrid=config.hybrid)

    def click_states(self, h: Tensor, batch: SessionBatch) -> tuple[Tensor, Tensor]:
        """Node embeddings [N, d] -> states of every click [C, d] and of the last click [B, d]."""
        for _ in range(self.steps):
            h = self.conv(h, batch.edge_index, batch.weight_in, batch.weight_out)
        clicks = h[batch.click_node]
        if self.positions is not None:
            clicks = clicks + self.positions(batch.click_age)
        return clicks, h[batch.last_node]

    def forward(self, h: Tensor, batch: SessionBatch) -> Tensor:
        """Node embeddings [N, d] -> session vectors [B, d]."""
        clicks, last = self.click_states(h, batch)
        vectors: Tensor = self.readout(clicks, last, batch)
        return vectors


class SRGNN(nn.Module):
    """Scores of all V items for B sessions: ``session_vectors(batch, item_matrix(batch.x)) @ item_matrix().T``.

    Items carry no padding row: node ids are catalogue rows 0..V-1, and every row is a candidate.
    """

    def __init__(self, config: SRGNNConfig, num_items: int, max_length: int) -> None:
        super().__init__()
        self.config = config
        self.num_items = num_items
        self.embedding = nn.Parameter(torch.empty(num_items, config.hidden_size))
        self.encoder = SessionEncoder(config, max_length)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """U(-1/sqrt(d), 1/sqrt(d)) on everything, as published."""
        bound = 1.0 / math.sqrt(self.config.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def item_matrix(self, rows: Tensor | None = None) -> Tensor:
        """[V, d], the layer-0 table, or [n, d], the given rows of it; unit rows under cosine scoring.

        The gradient of given rows is sparse.
        """
        table = self.embedding if rows is None else functional.embedding(rows, self.embedding, sparse=True)
        return unit_rows(table) if self.config.scoring == "cosine" else table

    def session_vectors(self, batch: SessionBatch, nodes: Tensor) -> Tensor:
        """[B, d] from ``nodes`` [N, d], ``item_matrix(batch.x)``. Length ``scale`` under cosine scoring."""
        nodes = functional.dropout(nodes, self.config.dropout, self.training)
        vectors: Tensor = self.encoder(nodes, batch)
        return scale_vectors(vectors, self.config)

    def forward(self, batch: SessionBatch) -> Tensor:
        """Scores [B, V]."""
        items = self.item_matrix()
        return self.session_vectors(batch, items[batch.x]) @ items.T


def scale_vectors(vectors: Tensor, config: SRGNNConfig) -> Tensor:
    """[B, d] -> [B, d]: unchanged for dot, of length ``scale`` for cosine."""
    if config.scoring == "cosine":
        return unit_rows(vectors) * config.scale
    return vectors
