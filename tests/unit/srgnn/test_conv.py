import numpy as np
import torch
from torch import nn

from srgnn.conv import GatedSessionConv
from srgnn.session_batch import session_batch


def test_one_step_is_the_papers_equations_with_dense_matrices():
    torch.manual_seed(0)
    conv, batch = GatedSessionConv(4), session_batch([np.array([7, 3, 7, 7, 5]), np.array([1, 2])])
    nn.init.normal_(conv.bias_in)
    nn.init.normal_(conv.bias_out)
    h = torch.randn(batch.num_nodes, 4)
    adjacency = torch.zeros(batch.num_nodes, batch.num_nodes)
    adjacency[batch.edge_index[0], batch.edge_index[1]] = 1.0
    mean_in = adjacency.T / adjacency.sum(0).clamp(min=1).unsqueeze(1)
    mean_out = adjacency / adjacency.sum(1).clamp(min=1).unsqueeze(1)
    incoming = torch.cat(
        [mean_in @ conv.linear_in(h) + conv.bias_in, mean_out @ conv.linear_out(h) + conv.bias_out], dim=1
    )
    torch.testing.assert_close(conv(h, batch.edge_index, batch.weight_in, batch.weight_out), conv.cell(incoming, h))


def test_a_lonely_node_hears_only_the_bias():
    conv, batch = GatedSessionConv(4), session_batch([np.array([3])])
    h = torch.randn(1, 4)
    bias = torch.cat([conv.bias_in, conv.bias_out]).unsqueeze(0)
    torch.testing.assert_close(conv(h, batch.edge_index, batch.weight_in, batch.weight_out), conv.cell(bias, h))
