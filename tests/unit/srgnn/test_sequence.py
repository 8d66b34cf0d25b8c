import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn.errors import ConfigError
from srgnn.sequence import SessionRules, encode, window, window_starts
from srgnn.vocabulary import Vocabulary


def test_encode_skips_unknown_items_and_keeps_repeats():
    assert encode(Vocabulary(["a", "b"]), ["b", "?", "a", "b"]).tolist() == [1, 0, 1]
    assert encode(Vocabulary(["a"]), []).shape == (0,)


@given(length=st.integers(0, 30), max_length=st.integers(1, 12))
def test_window_is_the_last_clicks(length, max_length):
    rows = np.arange(length)
    assert window(rows, SessionRules(max_length)).tolist() == rows.tolist()[-max_length:]


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=20),
    max_length=st.integers(1, 12),
)
def test_many_windows_at_once_are_each_window(lengths, max_length):
    rules, ends = SessionRules(max_length), np.cumsum(lengths)
    starts = window_starts(ends - lengths, ends, rules)
    flat = np.arange(ends[-1])
    for start, end, length in zip(starts, ends, lengths, strict=True):
        assert flat[start:end].tolist() == window(flat[end - length : end], rules).tolist()


@pytest.mark.parametrize("length", [0, -1, 10_001])
def test_rules_refuse_a_length_out_of_bounds(length):
    with pytest.raises(ConfigError, match=rf"max_length is {length}"):
        SessionRules(length)
