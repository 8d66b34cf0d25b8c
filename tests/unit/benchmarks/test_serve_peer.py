import pytest

from benchmarks.serve_peer import peer
from srgnn.errors import InputError
from tests.conftest import tiny_vocabulary
from tests.corpora import random_corpus


def test_a_baseline_is_served_under_its_name_and_answers_from_the_corpus(tmp_path):
    corpus = random_corpus(tmp_path / "corpus", tiny_vocabulary())
    recommender = peer(corpus, "markov")
    assert recommender.version == "markov"
    [best] = recommender.recommend([["100"]], 5)
    assert best.source == "model"
    assert len(best.item_ids) == 5


def test_an_unknown_baseline_is_refused(tmp_path):
    corpus = random_corpus(tmp_path / "corpus", tiny_vocabulary())
    with pytest.raises(InputError, match="expected one of popularity, session-popularity, markov"):
        peer(corpus, "marcov")
