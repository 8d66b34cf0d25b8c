import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srgnn.graph import session_batch, session_graphs
from srgnn.model import SRGNN, SRGNNConfig
from srgnn.packed import PackedEncoder

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
    found = PackedEncoder(model.encoder, config)(nodes.numpy(), session_graphs(rows))
    with torch.inference_mode():
        np.testing.assert_allclose(
            found, model.session_vectors(session_batch(rows), nodes).numpy(), rtol=1e-12, atol=1e-13
        )
    assert torch.equal(nodes, before)
