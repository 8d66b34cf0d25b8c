import numpy as np

from srgnn.loops.graphs import session_graphs


def test_two_sessions_end_to_end_have_graphs_of_their_own():
    items, lengths = np.array([7, 5, 7, 5, 9, 5]), np.array([5, 1])
    x, edge_index, weight_in, weight_out, node, session, age, last = session_graphs(items, lengths)
    assert x.tolist() == [5, 7, 9, 5]
    assert edge_index.tolist() == [[0, 0, 1], [1, 2, 0]], "5 to 7, 5 to 9, 7 to 5; what is clicked twice counts once"
    assert weight_in.tolist() == [1.0, 1.0, 1.0]
    assert weight_out.tolist() == [0.5, 0.5, 1.0]
    assert node.tolist() == [1, 0, 1, 0, 2, 3]
    assert session.tolist() == [0, 0, 0, 0, 0, 1]
    assert age.tolist() == [4, 3, 2, 1, 0, 0]
    assert last.tolist() == [2, 3]
