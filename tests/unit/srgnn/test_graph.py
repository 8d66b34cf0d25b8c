import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch

from srgnn.graph import flat_session_graphs
from srgnn.session_batch import flat_session_batch, session_batch

KEYS = ("x", "edge_index", "weight_in", "weight_out", "click_node", "click_session", "click_age", "last_node")
SESSIONS = st.lists(
    st.lists(st.integers(0, 12), min_size=1, max_size=15).map(lambda rows: np.array(rows, dtype=np.int64)),
    min_size=1,
    max_size=8,
)


def as_lists(batch):
    return {key: batch[key].tolist() for key in KEYS}


def test_a_session_by_hand():
    batch = session_batch([np.array([7, 3, 7, 7, 5])])  # edges 7->3, 3->7, 7->7, 7->5
    assert batch.x.tolist() == [3, 5, 7]
    assert sorted(zip(*batch.edge_index.tolist(), strict=True)) == [(0, 2), (2, 0), (2, 1), (2, 2)]
    assert batch.click_node.tolist() == [2, 0, 2, 2, 1]
    assert batch.click_age.tolist() == [4, 3, 2, 1, 0]
    assert batch.last_node.tolist() == [1]


def test_the_last_node_is_the_last_click_not_the_last_new_item():
    batch = session_batch([np.array([4, 9, 4])])
    assert batch.x[batch.last_node].tolist() == [4]


def test_an_edge_is_kept_once():
    repeated = session_batch([np.array([1, 2, 1, 2, 1, 2])])
    assert repeated.num_edges == 2
    assert repeated.weight_in.tolist() == repeated.weight_out.tolist() == [1.0, 1.0]


@given(SESSIONS)
@settings(max_examples=60)
def test_a_batch_equals_pyg_batch_of_single_graphs(sessions):
    together = session_batch(sessions)
    collated = Batch.from_data_list([session_batch([one]) for one in sessions])
    assert as_lists(together) == as_lists(collated)
    assert together.num_nodes == collated.num_nodes
    assert together.num_sessions == len(sessions)


@given(SESSIONS)
@settings(max_examples=60)
def test_nodes_are_distinct_and_weights_sum_to_one(sessions):
    batch = session_batch(sessions)
    node_session = torch.zeros(batch.num_nodes, dtype=torch.int64)
    node_session[batch.click_node] = batch.click_session
    nodes = list(zip(node_session.tolist(), batch.x.tolist(), strict=True))
    assert len(set(nodes)) == len(nodes)
    assert nodes == [(i, row) for i, one in enumerate(sessions) for row in sorted(set(one.tolist()))]
    source, target = batch.edge_index
    for ends, weight in ((target, batch.weight_in), (source, batch.weight_out)):
        sums = torch.zeros(batch.num_nodes).scatter_add_(0, ends, weight)
        assert torch.allclose(sums[ends.unique()], torch.ones(len(ends.unique())))


@given(SESSIONS)
@settings(max_examples=60)
def test_edges_are_the_distinct_transitions(sessions):
    batch = session_batch(sessions)
    source, target = batch.x[batch.edge_index].tolist()
    session_of_edge = batch.click_session[
        torch.tensor(
            [batch.click_node.tolist().index(node) for node in batch.edge_index[0].tolist()],
            dtype=torch.int64,
        )
    ].tolist()
    found = sorted(zip(session_of_edge, source, target, strict=True))
    wanted = sorted({(i, a, b) for i, one in enumerate(sessions) for a, b in itertools.pairwise(one)})
    assert found == wanted


def test_flat_and_listed_sessions_are_the_same():
    sessions = [np.array([1, 2, 1]), np.array([0])]
    flat = flat_session_batch(np.array([1, 2, 1, 0]), np.array([3, 1]))
    assert as_lists(flat) == as_lists(session_batch(sessions))


def test_no_sessions_and_empty_sessions_are_refused():
    with pytest.raises(ValueError, match="at least one sequence"):
        session_batch([])
    with pytest.raises(ValueError, match="sequence 1 is empty"):
        session_batch([np.array([1]), np.array([], dtype=np.int64)])


def test_lengths_that_do_not_belong_to_the_clicks_are_refused():
    with pytest.raises(ValueError, match="the lengths sum to 4, but there are 3 clicks"):
        flat_session_graphs(np.array([1, 2, 3]), np.array([2, 2]))
