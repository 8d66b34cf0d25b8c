import numpy as np

from tests.corpora import split_of
from training.baselines.session_popularity import SessionPopularity

SPLIT = split_of([[2, 2, 1], [2, 1, 3], [4]])  # clicks: 2 three times, 1 twice, 3 and 4 once


def top(sequence, k=6):
    scorer = SessionPopularity.fit(SPLIT.items, SPLIT.offsets, 6)
    return scorer.top_k([np.array(sequence)], k).rows[0].tolist()


def test_the_sessions_own_clicks_come_first_most_often_clicked_before_the_others():
    assert top([3, 4, 4]) == [4, 3, 2, 1, -1, -1]


def test_equally_often_clicked_items_are_ordered_by_global_popularity():
    assert top([4, 1, 2]) == [2, 1, 4, 3, -1, -1]


def test_an_item_without_training_clicks_is_not_answered():
    assert top([5, 5, 3], k=2) == [3, 2]
