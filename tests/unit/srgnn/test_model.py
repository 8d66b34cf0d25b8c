import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srgnn.model import SRGNN, SRGNNConfig
from srgnn.session_batch import session_batch

CONFIGS = [
    SRGNNConfig(hidden_size=8),
    SRGNNConfig(hidden_size=8, steps=3, hybrid=False),
    SRGNNConfig(hidden_size=8, scoring="cosine", scale=12.0, dropout=0.3, reversed_positions=True),
]
SESSIONS = st.lists(
    st.lists(st.integers(0, 19), min_size=1, max_size=12).map(lambda rows: np.array(rows, dtype=np.int64)),
    min_size=2,
    max_size=6,
)


@pytest.fixture(params=CONFIGS, ids=["paper", "global-only", "cosine"], scope="module")
def model(request):
    torch.manual_seed(0)
    return SRGNN(request.param, num_items=20, max_length=12).double().eval()


@given(sessions=SESSIONS, data=st.data())
@settings(max_examples=25)
def test_a_batch_is_each_session_alone_and_order_does_not_matter(model, sessions, data):
    together = model(session_batch(sessions))
    alone = torch.cat([model(session_batch([one])) for one in sessions])
    torch.testing.assert_close(together, alone)
    order = data.draw(st.permutations(range(len(sessions))))
    torch.testing.assert_close(model(session_batch([sessions[i] for i in order])), together[list(order)])


def test_scores_are_session_vectors_against_the_item_matrix(model):
    batch = session_batch([np.array([1, 2, 1]), np.array([3])])
    assert model(batch).shape == (2, 20)
    vectors = model.session_vectors(batch, model.item_matrix(batch.x))
    torch.testing.assert_close(model(batch), vectors @ model.item_matrix().T)


def test_cosine_scores_stay_within_the_scale():
    torch.manual_seed(0)
    model = SRGNN(CONFIGS[2], num_items=20, max_length=12).eval()
    batch = session_batch([np.array([1, 2, 1])])
    torch.testing.assert_close(model.item_matrix().norm(dim=1), torch.ones(20))
    vectors = model.session_vectors(batch, model.item_matrix(batch.x))
    torch.testing.assert_close(vectors.norm(dim=1), torch.tensor([12.0]))
    assert model(batch).abs().max() <= 12.0


def test_dropout_acts_in_training_only():
    model, batch = SRGNN(CONFIGS[2], num_items=20, max_length=12), session_batch([np.array([1, 2, 1])])
    assert not torch.equal(model.train()(batch), model.train()(batch))
    assert torch.equal(model.eval()(batch), model.eval()(batch))


def test_reversed_positions_count_from_the_last_click():
    model = SRGNN(CONFIGS[2], num_items=20, max_length=12).eval()
    batch = session_batch([np.array([1, 2, 3])])
    before = model(batch)
    with torch.no_grad():
        model.encoder.positions.weight[3:] += 1.0  # ages that three clicks do not reach
    assert torch.equal(model(batch), before)
    with torch.no_grad():
        model.encoder.positions.weight[2] += 1.0  # the oldest of three
    assert not torch.equal(model(batch), before)


def test_the_same_items_in_another_order_are_another_session(model):
    forward, backward = (
        model(session_batch([np.array([1, 2, 3])])),
        model(session_batch([np.array([2, 1, 3])])),
    )
    assert not torch.allclose(forward, backward)


def test_weights_start_uniform_within_the_published_bound():
    model = SRGNN(SRGNNConfig(hidden_size=25), num_items=50, max_length=5)
    assert all(parameter.abs().max() <= 0.2 for parameter in model.parameters())
    assert model.embedding.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.1)
