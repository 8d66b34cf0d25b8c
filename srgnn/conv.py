"""One gated propagation step over the session graph."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing


class GatedSessionConv(MessagePassing):  # type: ignore[misc]
    r"""The gated graph step of SR-GNN (Wu et al., AAAI 2019, equations 1-5).

    .. math::
        a^{in}_v  &= \mathrm{mean}_{u \in E_{in}(v)} (W_{in} h_u + b_{in}) + b_{iah} \\
        a^{out}_v &= \mathrm{mean}_{u \in E_{out}(v)} (W_{out} h_u + b_{out}) + b_{oah} \\
        h'_v &= \mathrm{GRU}([a^{in}_v ; a^{out}_v], h_v)

    A node without predecessors (successors) receives the bias alone. Not PyG's ``GatedGraphConv``: that one sums,
    knows one direction and one linear map.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__(aggr="add")
        self.linear_in = nn.Linear(hidden_size, hidden_size)
        self.linear_out = nn.Linear(hidden_size, hidden_size)
        self.bias_in = nn.Parameter(torch.zeros(hidden_size))
        self.bias_out = nn.Parameter(torch.zeros(hidden_size))
        self.cell = nn.GRUCell(2 * hidden_size, hidden_size)

    def forward(self, h: Tensor, edge_index: Tensor, weight_in: Tensor, weight_out: Tensor) -> Tensor:
        """h [N, d], edge_index [2, E], weights [E] (means, see :class:`SessionBatch`) -> [N, d]."""
        a_in = self.propagate(edge_index, x=self.linear_in(h), weight=weight_in.to(h.dtype))
        a_out = self.propagate(edge_index.flip(0), x=self.linear_out(h), weight=weight_out.to(h.dtype))
        incoming = torch.cat([a_in + self.bias_in, a_out + self.bias_out], dim=1)  # [N, 2d]
        updated: Tensor = self.cell(incoming, h)
        return updated

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        """Weighted neighbours: [E, d]; their sum is the mean."""
        return x_j * weight.unsqueeze(1)
