import math

import numpy as np
import pytest

from tests.corpora import split_of
from training.baselines import item_knn
from training.baselines.item_knn import REGULARISATION, ItemKNN


def fit(sessions, num_items=6):
    split = split_of(sessions)
    return ItemKNN.fit(np.asarray(split.items, dtype=np.int64), split.offsets, num_items)


def test_the_last_click_and_the_items_of_its_sessions_come_first():
    scorer = fit([[0, 1, 1], [1, 0], [0, 2], [3, 4], [3, 4], [3, 4]])
    assert scorer.top_k([np.array([3, 0])], 5).rows.tolist() == [[0, 1, 2, 3, 4]]


def test_an_item_that_is_in_every_session_is_like_none():
    # 1 and 2 share two sessions with 0; 1 is in 400 others as well
    scorer = fit([[0, 1, 2], [0, 1, 2], *[[1, 3]] * 400])
    assert scorer.top_k([np.array([0])], 3).rows.tolist() == [[0, 2, 1]]


def test_the_score_is_the_cosine_but_for_the_factor_of_the_last_click():
    scorer = fit([[0, 1], [0, 1], [0, 2], [1]])
    top = scorer.top_k([np.array([0])], 3)
    cosines = [3 / math.sqrt(3 + REGULARISATION), 2 / math.sqrt(3 + REGULARISATION), 1 / math.sqrt(1 + REGULARISATION)]
    assert top.rows.tolist() == [[0, 1, 2]]
    assert top.scores[0] == pytest.approx(cosines, rel=1e-3)  # popularity breaks ties within that


def test_only_the_latest_sessions_of_an_item_are_looked_at(monkeypatch):
    monkeypatch.setattr(item_knn, "SAMPLE", 2)
    scorer = fit([[0, 1], [0, 1], [0, 1], [0, 2], [0, 2], [1, 3]])
    assert set(scorer.votes(np.array([0])).rows.tolist()) == {0, 2}


def test_an_item_without_sessions_gets_the_popular_items():
    assert fit([[0, 1], [1]]).top_k([np.array([5])], 3).rows.tolist() == [[1, 0, -1]]
