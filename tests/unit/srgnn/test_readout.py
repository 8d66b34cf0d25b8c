import numpy as np
import torch

from srgnn.readout import SoftAttentionReadout
from srgnn.session_batch import session_batch


def by_hand(readout, clicks, last):
    """One session, as the paper writes it."""
    alpha = readout.query(torch.sigmoid(readout.linear_last(last) + readout.linear_click(clicks)))
    return (alpha * clicks).sum(0, keepdim=True)


def test_it_is_the_papers_equations_session_by_session():
    torch.manual_seed(0)
    readout = SoftAttentionReadout(4)
    batch = session_batch([np.array([1, 2, 1]), np.array([5])])
    h = torch.randn(batch.num_nodes, 4)
    clicks, last = h[batch.click_node], h[batch.last_node]
    found = readout(clicks, last, batch)
    for i, rows in enumerate((slice(0, 3), slice(3, 4))):
        one = torch.cat([by_hand(readout, clicks[rows], last[i : i + 1]), last[i : i + 1]], dim=1)
        torch.testing.assert_close(found[i : i + 1], readout.merge(one))


def test_a_repeated_item_counts_each_time():
    readout = SoftAttentionReadout(4, hybrid=False)
    once, twice = session_batch([np.array([1])]), session_batch([np.array([1, 1])])
    h = torch.randn(1, 4)
    single = readout(h[once.click_node], h[once.last_node], once)
    double = readout(h[twice.click_node], h[twice.last_node], twice)
    torch.testing.assert_close(double, 2 * single)


def test_without_hybrid_there_is_no_merge():
    assert SoftAttentionReadout(4, hybrid=False).merge is None
