import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srgnn.loops.habits import labelled, paths


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 8))
def test_items_are_numbered_from_the_last_click_on_as_they_come(sequence, depth):
    labels = np.empty(depth, np.int64)
    clicks = labelled(np.array(sequence), labels)
    latest = sequence[::-1][:depth]
    numbers = {item: number for number, item in enumerate(dict.fromkeys(latest))}
    assert labels[:clicks].tolist() == [numbers[item] for item in latest]


def test_a_path_tells_where_a_session_begins_and_which_of_its_items_came_next():
    items, lengths, targets = np.array([3, 4, 3, 5, 5]), np.array([3, 2]), np.array([4, 9])
    ways, outcomes = paths(items, lengths, targets, 3)
    assert ways.tolist() == [[0, 1, 0, 3], [0, 0, 3, -1]]
    assert outcomes.tolist() == [1, 3]
