import numpy as np
import pytest

from srgnn.neighbours import STAN
from tests.corpora import random_sessions, split_of
from training.baselines.session_knn import SKNN, VSKNN, SessionKNN

ITEMS = 10


def fit(sessions, weights):
    split = split_of(sessions)
    return SessionKNN.fit(np.asarray(split.items, dtype=np.int64), split.offsets, ITEMS, weights)


def test_without_neighbours_the_popular_items_are_answered():
    assert fit([[0, 1], [1]], STAN).top_k([np.array([7])], 3).rows.tolist() == [[1, 0, -1]]


@pytest.mark.parametrize("weights", [SKNN, VSKNN, STAN], ids=["s-knn", "v-sknn", "stan"])
def test_what_followed_is_found(weights):
    sessions = [[0, 1, 2], [0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert fit(sessions, weights).top_k([np.array([0, 1])], 3).rows[0].tolist().count(2) == 1


def test_the_answer_is_the_same_every_time():
    sessions = random_sessions(0, 300, ITEMS)
    sequences = [np.array(session) for session in random_sessions(1, 30, ITEMS)]
    first, second = (fit(sessions, STAN).top_k(sequences, ITEMS) for _ in range(2))
    assert np.array_equal(first.rows, second.rows)
    assert np.array_equal(first.scores, second.scores)
