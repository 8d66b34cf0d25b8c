"""From node states to one vector a session."""

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from .session_batch import SessionBatch


class SoftAttentionReadout(nn.Module):
    """Local (last click) and global (attention over clicks) session embedding, SR-GNN equations 6-7.

    ``alpha_i = q^T sigmoid(W1 s_l + W2 h[c_i] + c)``, ``s_g = sum_i alpha_i h[c_i]``, ``s_h = W3 [s_g ; s_l] + b``.
    The attention has no softmax and runs over click positions: a repeated item counts each time.

    hybrid: False answers with ``s_g`` alone (the published code's ``nonhybrid``).
    """

    def __init__(self, hidden_size: int, *, hybrid: bool = True) -> None:
        super().__init__()
        self.linear_last = nn.Linear(hidden_size, hidden_size)
        self.linear_click = nn.Linear(hidden_size, hidden_size)
        self.query = nn.Linear(hidden_size, 1, bias=False)
        self.merge = nn.Linear(2 * hidden_size, hidden_size) if hybrid else None

    def attention(self, clicks: Tensor, last: Tensor, batch: SessionBatch) -> Tensor:
        """alpha [C, 1] for click states [C, d] and last-click states [B, d]."""
        context = self.linear_last(last)[batch.click_session]  # [C, d]
        alpha: Tensor = self.query(torch.sigmoid(context + self.linear_click(clicks)))
        return alpha

    def forward(self, clicks: Tensor, last: Tensor, batch: SessionBatch) -> Tensor:
        """Click states [C, d], last-click states [B, d] -> session vectors [B, d]."""
        alpha = self.attention(clicks, last, batch)
        global_part: Tensor = scatter(
            alpha * clicks, batch.click_session, dim=0, dim_size=batch.num_sessions, reduce="sum"
        )
        if self.merge is None:
            return global_part
        merged: Tensor = self.merge(torch.cat([global_part, last], dim=1))
        return merged
