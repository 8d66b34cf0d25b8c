import itertools
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.corpora import split_of
from training.baselines.markov import Markov

SESSIONS = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=8), min_size=1, max_size=12)


def markov(sessions, num_items=8):
    split = split_of(sessions)
    return Markov.fit(split.items, split.offsets, num_items)


def test_what_followed_the_last_item_most_often_comes_first():
    scorer = markov([[0, 1], [0, 2], [0, 2], [3, 3, 3, 3]])
    assert scorer.top_k([np.array([3, 0])], 4).rows.tolist() == [[2, 1, 3, 0]]


def test_only_the_last_click_counts():
    scorer = markov([[0, 1], [2, 3]])
    assert scorer.top_k([np.array([0]), np.array([2, 2, 0])], 1).rows.tolist() == [[1], [1]]


def test_a_session_ends_its_transitions():
    scorer = markov([[0, 1], [2, 2, 2]])
    assert scorer.top_k([np.array([1])], 1).rows.tolist() == [[2]]


def test_a_repeated_click_is_a_transition_to_itself():
    assert markov([[5, 5, 1]]).top_k([np.array([5])], 2).rows.tolist() == [[5, 1]]


def test_large_counts_make_no_ties_that_are_not_there():
    # 2**24 + popularity share would round in float32; both items follow 0 equally often, 2 is clicked more.
    item_counts = np.array([0, 5, 6, 1]) + 2**24
    scorer = Markov(np.array([0, 0]), np.array([1, 2]), np.array([2**24, 2**24]), item_counts)
    ranks = scorer.ranks([np.array([0])] * 2, np.array([1, 2]))
    assert ranks.rank.tolist() == [2, 1]
    assert ranks.ties.tolist() == [0, 0]


@given(SESSIONS, st.integers(0, 7))
def test_ranks_agree_with_counting_one_by_one(sessions, last):
    followed = Counter(pair[1] for session in sessions for pair in itertools.pairwise(session) if pair[0] == last)
    clicks = Counter(item for session in sessions for item in session)
    keys = [(item in clicks, followed[item], clicks[item]) for item in range(8)]
    expected = [sum(other >= key for other in keys) for key in keys]

    ranks = markov(sessions).ranks([np.array([last])] * 8, np.arange(8))

    clicked = np.array([key[0] for key in keys])
    assert ranks.rank[clicked].tolist() == np.array(expected)[clicked].tolist()
    assert (ranks.rank[~clicked] == 8).all()
