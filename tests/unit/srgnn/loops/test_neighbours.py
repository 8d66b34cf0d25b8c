import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srgnn.loops.neighbours import last_clicks


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_distinct_items_come_in_the_order_of_their_last_clicks(sequence):
    rows, ages, times = last_clicks(np.array(sequence))
    wanted = list(dict.fromkeys(reversed(sequence)))[::-1]
    assert rows.tolist() == wanted
    assert ages.tolist() == [sequence[::-1].index(row) for row in wanted]
    assert times.tolist() == [sequence.count(row) for row in wanted]
