import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srgnn.model import SRGNN, SRGNNConfig
from srgnn.packed import PackedEncoder, encoder_shapes
from srgnn.session_batch import session_batch

ITEMS, MAX_LENGTH = 9, 12
SEQUENCES = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=MAX_LENGTH), min_size=1, max_size=8)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("hybrid", [True, False])
@pytest.mark.parametrize("reversed_positions", [True, False])
@pytest.mark.parametrize("scoring", ["dot", "cosine"])
@given(sequences=SEQUENCES, seed=st.integers(0, 100))
def test_it_is_the_encoder(steps, hybrid, reversed_positions, scoring, sequences, seed):
    torch.manual_seed(seed)
    config = SRGNNConfig(
        hidden_size=5, steps=steps, hybrid=hybrid, reversed_positions=reversed_positions, scoring=scoring
    )
    model = SRGNN(config, ITEMS, MAX_LENGTH).double().eval()
    rows = [np.array(sequence) for sequence in sequences]
    items = torch.randn(ITEMS, 5)
    before = items.clone()
    found, _ = PackedEncoder(model.encoder.state_dict(), config)(items.numpy(), rows)
    batch = session_batch(rows)
    with torch.inference_mode():
        wanted = model.session_vectors(batch, items.double()[batch.x]).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)
    assert torch.equal(items, before)


@given(sequences=SEQUENCES, seed=st.integers(0, 100))
def test_attention_is_the_encoders(sequences, seed):
    torch.manual_seed(seed)
    config = SRGNNConfig(hidden_size=5, steps=2, reversed_positions=True)
    encoder = SRGNN(config, ITEMS, MAX_LENGTH).double().encoder
    items, rows = torch.randn(ITEMS, 5), [np.array(sequence) for sequence in sequences]
    _, found = PackedEncoder(encoder.state_dict(), config)(items.numpy(), rows)
    batch = session_batch(rows)
    with torch.inference_mode():
        alpha = encoder.readout.attention(*encoder.click_states(items.double()[batch.x], batch), batch)
    np.testing.assert_allclose(found, alpha.squeeze(1).numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("width", [5, 100])
@pytest.mark.parametrize("ready", [[3], [5, 0, 8], range(ITEMS)])
@given(sequences=SEQUENCES, seed=st.integers(0, 100))
def test_what_is_made_ready_changes_no_bit(ready, width, sequences, seed):
    torch.manual_seed(seed)
    config = SRGNNConfig(hidden_size=width, steps=2)
    packed = PackedEncoder(SRGNN(config, ITEMS, MAX_LENGTH).encoder.state_dict(), config)
    items, rows = torch.randn(ITEMS, width + 2).numpy(), [np.array(sequence) for sequence in sequences]
    before = packed(items, rows)
    packed.make_ready(items, np.array(ready))
    for found, wanted in zip(packed(items, rows), before, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_as_much_is_made_ready_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr("srgnn.packed.READY_BYTES", 2 * 9 * 5 * 8 + 359)
    monkeypatch.setattr("srgnn.packed.READY_AT_ONCE", 1)
    config = SRGNNConfig(hidden_size=5)
    packed = PackedEncoder(SRGNN(config, ITEMS, MAX_LENGTH).encoder.state_dict(), config)
    packed.make_ready(torch.randn(ITEMS, 5).numpy(), np.array([4, 2, 7]))
    assert packed.weights.ready.shape == (2, 3, 15)
    np.testing.assert_array_equal(packed.weights.ready_at, [-1, -1, 1, -1, 0, -1, -1, -1, -1])


def test_many_sequences_are_answered_as_few_are(monkeypatch):
    config = SRGNNConfig(hidden_size=5)
    packed = PackedEncoder(SRGNN(config, ITEMS, MAX_LENGTH).encoder.state_dict(), config)
    items, rows = torch.randn(ITEMS, 5).numpy(), [np.array([n % ITEMS, 1, n % 3]) for n in range(11)]
    whole = packed(items, rows)
    monkeypatch.setattr("srgnn.packed.AT_ONCE", 4)
    for found, wanted in zip(packed(items, rows), whole, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("hybrid", [True, False])
@pytest.mark.parametrize("reversed_positions", [True, False])
def test_the_shapes_are_those_of_the_encoder(hybrid, reversed_positions):
    config = SRGNNConfig(hidden_size=3, hybrid=hybrid, reversed_positions=reversed_positions)
    state = SRGNN(config, ITEMS, MAX_LENGTH).encoder.state_dict()
    assert encoder_shapes(config, MAX_LENGTH) == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_a_model_that_is_trained_further_does_not_change_what_was_packed():
    model = SRGNN(SRGNNConfig(hidden_size=5), ITEMS, MAX_LENGTH).double()
    packed, items, sequences = (
        PackedEncoder(model.encoder.state_dict(), model.config),
        np.ones((ITEMS, 5), np.float32),
        [np.array([1, 2, 1])],
    )
    before, _ = packed(items, sequences)
    model.reset_parameters()
    np.testing.assert_array_equal(packed(items, sequences)[0], before)


@pytest.mark.parametrize(
    ("sequences", "error"),
    [([[ITEMS]], IndexError), ([[0], [-1, 2]], IndexError), ([[0], []], ValueError), ([], ValueError)],
)
def test_what_no_catalogue_or_session_holds_is_refused(sequences, error):
    model = SRGNN(SRGNNConfig(hidden_size=5), ITEMS, MAX_LENGTH)
    packed = PackedEncoder(model.encoder.state_dict(), model.config)
    with pytest.raises(error):
        packed(np.ones((ITEMS, 5), np.float32), [np.array(sequence, np.int64) for sequence in sequences])
