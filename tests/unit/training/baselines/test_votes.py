import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srgnn.neighbours import Votes
from training.baselines.votes import VoteScorer

CLICKS = np.array([5, 9, 1, 0, 9, 2])  # popular: 1, 4, 0, 5, 2; never answered: 3


class Fixed(VoteScorer):
    """The same votes for every sequence."""

    def __init__(self, votes, item_counts=CLICKS):
        super().__init__(item_counts)
        self.fixed = Votes(np.array([row for row, _ in votes], dtype=np.int64), np.array([w for _, w in votes], float))

    def votes(self, sequence):
        return self.fixed


ANY = [np.array([0])]


def rows(votes, k=6, exclude=()):
    return Fixed(votes).top_k(ANY, k, [np.array(exclude, dtype=np.int64)]).rows[0].tolist()


def test_votes_add_up_and_popularity_orders_the_rest():
    assert rows([(2, 1.0), (5, 1.5), (2, 1.0)]) == [2, 5, 1, 4, 0, -1]


def test_without_votes_the_list_is_popularity():
    assert rows([]) == [1, 4, 0, 5, 2, -1]


def test_popularity_decides_between_equal_votes_and_the_row_between_equally_popular_items():
    assert rows([(2, 1.0), (4, 1.0), (1, 1.0), (5, 1.0)], k=4) == [1, 4, 5, 2]


def test_popularity_does_not_overrule_votes():
    assert rows([(1, 1.0), (2, 1.01)], k=2) == [2, 1]


def test_a_vote_without_weight_still_comes_before_none():
    assert rows([(2, 0.0)], k=2) == [2, 1]


def test_votes_for_an_item_without_clicks_are_void():
    assert rows([(3, 9.0), (0, 1.0)], k=2) == [0, 1]


def test_excluded_items_are_replaced_by_the_next():
    assert rows([(2, 1.0), (5, 2.0)], k=3, exclude=[5, 1]) == [2, 4, 0]


def test_an_item_scored_by_votes_is_above_zero_and_any_other_below():
    scores = Fixed([(2, 0.5), (0, 0.0)]).top_k(ANY, 6).scores[0]
    assert (scores[:2] >= 0).all()
    assert (scores[2:5] < 0).all()
    assert np.isneginf(scores[5])


def test_no_session_no_list():
    assert Fixed([]).top_k([], 3).rows.shape == (0, 3)
    assert Fixed([]).ranks([], np.array([], dtype=np.int64)).rank.shape == (0,)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0])), max_size=12))
def test_ranks_are_counted_over_the_whole_list(votes):
    scorer = Fixed(votes)
    top = scorer.top_k(ANY, 6)
    scores = np.full(6, -np.inf, np.float32)
    scores[top.rows[0, :5]] = top.scores[0, :5]

    ranks = scorer.ranks(ANY * 6, np.arange(6))

    assert ranks.rank.tolist() == [int((scores >= own).sum()) for own in scores]
    assert ranks.ties.tolist() == [int((scores == own).sum()) - 1 for own in scores]
