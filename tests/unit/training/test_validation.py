import numpy as np
import pytest

from srgnn.scorer import DenseScorer, SRGNNScorer
from srgnn.sequence import SessionRules
from tests.conftest import TINY_ITEMS, tiny_model
from tests.corpora import split_of
from training.examples import Examples
from training.validation import figures, validate


class Rising(DenseScorer):
    """Row r scores r."""

    def scores(self, sequences):
        return np.tile(np.arange(self.num_items, dtype=np.float32), (len(sequences), 1))


EXAMPLES = Examples(split_of([[0, 29], [0, 28], [0, 9, 25]]), SessionRules())


def test_figures_are_those_of_all_examples():
    scorer = Rising(30)  # ranks 1, 2, 21, 5
    assert figures(scorer, EXAMPLES) == {"recall@20": 3 / 4, "mrr@20": pytest.approx((1 + 1 / 2 + 1 / 5) / 4)}


def test_a_model_is_validated_by_the_scorer_that_serves():
    model, servable = tiny_model(), np.ones(TINY_ITEMS, np.int64)
    model.train()
    examples = Examples(split_of([[1, 2, 3], [4, 5]]), SessionRules())
    assert validate(model, examples, servable) == figures(SRGNNScorer.of_model(model, servable > 0), examples)
    assert not model.training
