import numpy as np

from srgnn.habits import NO_HABITS
from srgnn.loops.evidence import evidence
from srgnn.neighbours import STAN, Neighbours
from srgnn.session_index import SessionIndex


def test_what_is_known_of_a_sessions_own_items_stands_where_they_do():
    index = SessionIndex.build(np.array([0, 1, 0, 2, 3, 2]), np.array([0, 2, 4, 6]), 5)  # 0 1, 0 2 and 3 2
    memory, items, sequence = Neighbours(index, STAN).memory, np.eye(5, dtype=np.float32), np.array([4, 0])
    rows, shares, places, known = evidence(memory, NO_HABITS, sequence, 200, 1e-3, items, np.arange(5.0))
    assert sorted(rows.tolist()) == [0, 1, 2, 4]
    assert rows[places].tolist() == [4, 0], "in the order of their last clicks"
    assert shares[rows.tolist().index(4)] == 0, "nobody votes for it"
    assert shares[rows.tolist().index(1)] > 0
    assert known[:, 3].tolist() == [0, 1], "the last click"
    assert known[:, 5].tolist() == [4, 0], "the score of each"
