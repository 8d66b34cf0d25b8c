import numpy as np

from tests.corpora import split_of
from training.baselines.popularity import Popularity

SPLIT = split_of([[2, 2, 1], [2, 1, 3], [4]])


def popularity():
    return Popularity.fit(SPLIT.items, SPLIT.offsets, 6)


def test_everybody_gets_the_most_clicked_items_in_order():
    top = popularity().top_k([np.array([0]), np.array([3, 4])], 4)
    assert top.rows.tolist() == [[2, 1, 3, 4]] * 2
    assert top.scores.tolist() == [[3, 2, 1, 1]] * 2


def test_items_without_clicks_are_never_answered():
    assert popularity().top_k([np.array([2])], 6).rows.tolist() == [[2, 1, 3, 4, -1, -1]]


def test_equally_clicked_items_count_as_ties():
    ranks = popularity().ranks([np.array([2])] * 3, np.array([2, 3, 4]))
    assert ranks.rank.tolist() == [1, 4, 4]
    assert ranks.ties.tolist() == [0, 1, 1]
