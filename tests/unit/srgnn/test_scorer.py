import numpy as np
import pytest
import torch

from srgnn.errors import InputError
from srgnn.model import SRGNN, SRGNNConfig
from srgnn.scorer import DenseScorer, SRGNNScorer
from srgnn.session_batch import session_batch

SEQUENCES = [np.array(rows) for rows in ([1, 2, 1], [5], [7, 7, 3, 9], [2, 0])]


@pytest.fixture(params=["dot", "cosine"])
def model(request):
    torch.manual_seed(0)
    config = SRGNNConfig(hidden_size=8, scoring=request.param, reversed_positions=True, dropout=0.5)
    return SRGNN(config, num_items=30, max_length=6)


def test_it_answers_what_the_model_scores(model):
    servable = np.arange(30) != 4
    scorer = SRGNNScorer.of_model(model, servable)
    scores = model.eval()(session_batch(SEQUENCES)).detach()
    scores[:, 4] = -torch.inf
    assert scorer.top_k(SEQUENCES, 5).rows.tolist() == scores.topk(5).indices.tolist()
    targets = np.array([3, 8, 2, 29])
    own = scores.gather(1, torch.from_numpy(targets)[:, None])
    assert scorer.ranks(SEQUENCES, targets).rank.tolist() == (scores >= own).sum(1).tolist()


def test_batch_and_single_answers_agree_to_the_bit(model):
    scorer = SRGNNScorer.of_model(model, np.ones(30, bool))
    together = scorer.top_k(SEQUENCES, 10)
    for i, one in enumerate(SEQUENCES):
        alone = scorer.top_k([one], 10)
        assert alone.rows[0].tolist() == together.rows[i].tolist()
        assert alone.scores[0].tolist() == together.scores[i].tolist()


def test_the_models_own_weights_stay_as_they_are(model):
    SRGNNScorer.of_model(model, np.ones(30, bool))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_attention_has_one_weight_a_click(model):
    weights = SRGNNScorer.of_model(model, np.ones(30, bool)).attention(np.array([1, 2, 1]))
    assert len(weights) == 3
    assert len(set(weights)) > 1


class Fixed(DenseScorer):
    """The scores it is given, whatever is asked."""

    def __init__(self, scores):
        super().__init__(scores.shape[1])
        self.fixed = scores

    def scores(self, sequences):
        return self.fixed[: len(sequences)]


def test_dense_top_k_breaks_ties_by_row_and_leaves_out_the_excluded():
    scorer = Fixed(np.array([[1, 3, 3, -np.inf, 2]], np.float32))
    top = scorer.top_k([np.array([0])], 5, [np.array([2])])
    assert top.rows.tolist() == [[1, 4, 0, -1, -1]]
    assert scorer.top_k([np.array([0])], 2).rows.tolist() == [[1, 2]]
    assert scorer.fixed[0, 2] == 3  # not written to


def test_dense_ranks_count_ties_against_the_target():
    scorer = Fixed(np.array([[1, 3, 3, 0, 2]] * 2, np.float32))
    ranks = scorer.ranks([np.array([0])] * 2, np.array([1, 4]))
    assert ranks.rank.tolist() == [2, 3]
    assert ranks.ties.tolist() == [1, 0]


@pytest.mark.parametrize("k", [0, 6])
def test_dense_k_out_of_bounds_is_refused(k):
    with pytest.raises(InputError, match=f"k is {k}"):
        Fixed(np.zeros((1, 5), np.float32)).top_k([np.array([0])], k)
