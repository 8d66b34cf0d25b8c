import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srgnn.graph import session_graphs
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
    nodes = torch.randn(len(session_batch(rows).x), 5, dtype=torch.float64)
    before = nodes.clone()
    found = PackedEncoder(model.encoder.state_dict(), config)(nodes.numpy(), session_graphs(rows))
    with torch.inference_mode():
        np.testing.assert_allclose(
            found, model.session_vectors(session_batch(rows), nodes).numpy(), rtol=1e-12, atol=1e-13
        )
    assert torch.equal(nodes, before)


@given(sequences=SEQUENCES, seed=st.integers(0, 100))
def test_attention_is_the_encoders(sequences, seed):
    torch.manual_seed(seed)
    config = SRGNNConfig(hidden_size=5, steps=2, reversed_positions=True)
    encoder = SRGNN(config, ITEMS, MAX_LENGTH).double().encoder
    batch, graphs = (make([np.array(sequence) for sequence in sequences]) for make in (session_batch, session_graphs))
    nodes = torch.randn(len(graphs.x), 5, dtype=torch.float64)
    found = PackedEncoder(encoder.state_dict(), config).attention(nodes.numpy(), graphs)
    with torch.inference_mode():
        alpha = encoder.readout.attention(*encoder.click_states(nodes, batch), batch)
    np.testing.assert_allclose(found, alpha.squeeze(1).numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("hybrid", [True, False])
@pytest.mark.parametrize("reversed_positions", [True, False])
def test_the_shapes_are_those_of_the_encoder(hybrid, reversed_positions):
    config = SRGNNConfig(hidden_size=3, hybrid=hybrid, reversed_positions=reversed_positions)
    state = SRGNN(config, ITEMS, MAX_LENGTH).encoder.state_dict()
    assert encoder_shapes(config, MAX_LENGTH) == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_a_model_that_is_trained_further_does_not_change_what_was_packed():
    model = SRGNN(SRGNNConfig(hidden_size=5), ITEMS, MAX_LENGTH).double()
    graphs = session_graphs([np.array([1, 2, 1])])
    packed, nodes = PackedEncoder(model.encoder.state_dict(), model.config), np.ones((len(graphs.x), 5))
    before = packed(nodes, graphs)
    model.reset_parameters()
    np.testing.assert_array_equal(packed(nodes, graphs), before)
