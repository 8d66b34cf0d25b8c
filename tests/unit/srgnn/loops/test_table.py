import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srgnn.loops.table import distinct, empty_table, slot_of

KEYS = st.lists(st.integers(0, 2**40), max_size=200)


@given(KEYS)
def test_distinct_keys_are_rising_and_each_is_found(keys):
    found, table = distinct(np.array(keys, np.int64), np.empty(len(keys), np.int64))
    assert found.tolist() == sorted(set(keys))
    assert [int(table[slot_of(table, found, key)]) for key in found] == list(range(len(found)))


@given(KEYS, st.integers(0, 2**40))
def test_a_key_that_is_not_there_has_an_empty_place(keys, other):
    found, table = distinct(np.array([key for key in keys if key != other], np.int64), np.empty(len(keys), np.int64))
    assert table[slot_of(table, found, other)] < 0


def test_there_is_always_room_for_what_a_table_is_made_for():
    for entries in range(70):
        table = empty_table(entries)
        assert len(table) > entries
        assert (table < 0).all()
