import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srgnn.sequence import SessionRules, window
from tests.corpora import split_of
from training.examples import Examples

SESSIONS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=8)


@given(SESSIONS, st.integers(1, 6))
def test_every_prefix_of_every_session_is_an_example_through_the_window(sessions, max_length):
    rules = SessionRules(max_length)
    examples = Examples(split_of(sessions), rules)
    wanted = [
        (i, n, window(np.array(one[:n]), rules).tolist(), one[n])
        for i, one in enumerate(sessions)
        for n in range(1, len(one))
    ]
    indices = np.arange(len(examples))
    sequences = [sequence.tolist() for sequence in examples.sequences(indices)]
    found = zip(examples.session, examples.positions, sequences, examples.targets, strict=True)
    assert [(int(i), int(n), rows, int(target)) for i, n, rows, target in found] == wanted


@given(SESSIONS.filter(lambda sessions: max(map(len, sessions)) > 1), st.integers(1, 6), st.data())
def test_a_flat_batch_is_its_sequences(sessions, max_length, data):
    examples = Examples(split_of(sessions), SessionRules(max_length))
    indices = np.array(data.draw(st.lists(st.integers(0, len(examples) - 1), min_size=1, max_size=9)))
    batch = examples.batch(indices)
    assert np.split(batch.items, np.cumsum(batch.lengths)[:-1])[0].tolist() == examples.sequences(indices)[0].tolist()
    assert batch.items.tolist() == np.concatenate(examples.sequences(indices)).tolist()
    assert batch.lengths.tolist() == [len(sequence) for sequence in examples.sequences(indices)]
    assert batch.targets.tolist() == examples.targets[indices].tolist()
