import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn.errors import ConfigError
from srgnn.loops.neighbours import DISTANCES, last_clicks
from srgnn.neighbours import STAN, Neighbours, Weights
from srgnn.session_index import SessionIndex
from tests.corpora import split_of

PLAIN = Weights()
ITEMS = 10
SESSIONS = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=6), min_size=2, max_size=12)


def fit(sessions, weights):
    split = split_of(sessions)
    return Neighbours(SessionIndex.build(np.asarray(split.items, dtype=np.int64), split.offsets, ITEMS), weights)


def votes(sessions, weights, sequence):
    """Item -> sum of its votes."""
    found = fit(sessions, weights).votes(np.array(sequence))
    return {row: float(found.weights[found.rows == row].sum()) for row in sorted(set(found.rows.tolist()))}


def test_a_past_session_votes_for_its_items_with_the_number_of_clicks_it_shares():
    assert votes([[0, 1, 5], [1, 6], [7, 8]], PLAIN, [0, 1]) == {0: 2, 1: 3, 5: 2, 6: 1}


def test_repeated_clicks_count_once():
    assert votes([[0, 0, 5, 5]], PLAIN, [0, 0, 0]) == {0: 1, 5: 1}


def test_only_the_most_similar_sessions_vote_of_equals_the_latest():
    sessions = [[0, 1, 5], [1, 6], [1, 7]]
    assert votes(sessions, replace(PLAIN, neighbours=1), [0, 1]) == {0: 2, 1: 2, 5: 2}
    assert votes(sessions, replace(PLAIN, neighbours=1), [1]) == {1: 1, 7: 1}


def test_only_the_latest_sessions_of_each_click_are_compared():
    sessions = [[0, 5], [1, 6], [1, 7], [1, 8]]
    assert votes(sessions, replace(PLAIN, sample=2), [0, 1]) == {0: 1, 1: 2, 5: 1, 7: 1, 8: 1}


def test_cosine_prefers_the_short_session():
    found = votes([[0, 5], [0, 6, 7, 8]], replace(PLAIN, cosine=True), [0])
    assert found[5] == pytest.approx(1 / math.sqrt(2))
    assert found[6] == pytest.approx(1 / math.sqrt(4))


def test_linear_decay_weighs_clicks_by_place_and_votes_by_the_last_shared_click():
    found = votes([[0, 5], [3, 6], [0, 3, 7]], replace(PLAIN, linear=True), [0, 1, 2, 3])
    assert found[5] == pytest.approx(1 / 4 * (1 - 3 / 10))
    assert found[6] == pytest.approx(1)
    assert found[7] == pytest.approx(1 + 1 / 4)


def test_linear_decay_does_not_go_below_zero():
    assert votes([[0, 5]], replace(PLAIN, linear=True), [0, *[1] * 15]) == {0: 0, 5: 0}


def test_click_decay_weighs_the_older_click_less():
    found = votes([[0, 5], [1, 6]], replace(PLAIN, click_decay=2.0), [0, 2, 3, 1])
    assert found[5] == pytest.approx(math.exp(-3 / 2))
    assert found[6] == pytest.approx(1)


def test_session_decay_weighs_the_older_session_less():
    found = votes([[0, 5], [3], [3], [0, 6]], replace(PLAIN, session_decay=0.5), [0])
    assert found[5] == pytest.approx(math.exp(-3 / 4 / 0.5))
    assert found[6] == pytest.approx(1)


def test_distance_decay_counts_from_the_last_shared_click():
    found = votes([[4, 0, 5, 1, 6, 7]], replace(PLAIN, distance_decay=2.0), [0, 1])
    assert found == pytest.approx(
        {row: 2 * math.exp(-away / 2) for row, away in {4: 3, 0: 2, 5: 1, 1: 0, 6: 1, 7: 2}.items()}
    )


def test_the_last_shared_click_is_the_one_made_last_in_the_current_session():
    found = votes([[0, 5, 1, 6, 7]], replace(PLAIN, distance_decay=2.0), [1, 0])
    assert found[5] == pytest.approx(2 * math.exp(-1 / 2))
    assert found[6] == pytest.approx(2 * math.exp(-3 / 2))


def test_idf_weighs_rare_items_more_in_similarity_and_in_votes():
    sessions = [[0, 5], [0, 1], [1], [1]]  # 0 is in 2 sessions of 4, 5 in 1, 1 in 3
    found = votes(sessions, replace(PLAIN, idf=True), [0])
    assert found[5] == pytest.approx(math.log(2) * math.log(4))
    assert found[1] == pytest.approx(math.log(2) * math.log(4 / 3))


@given(SESSIONS, st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=6), st.integers(1, 12))
def test_votes_agree_with_three_loops(sessions, sequence, neighbours):
    """STAN as one would write it down."""
    weights = replace(STAN, neighbours=neighbours)
    idf = [math.log(len(sessions) / max(1, sum(item in session for session in sessions))) for item in range(ITEMS)]
    age = {item: len(sequence) - 1 - place for place, item in enumerate(sequence)}
    similar = []
    for number, session in enumerate(sessions):
        shared = sorted(set(session) & set(sequence), key=lambda item: -age[item])
        if shared:
            similarity = sum(math.exp(-age[item] / weights.click_decay) * idf[item] for item in shared)
            similarity *= math.exp(-(len(sessions) - 1 - number) / len(sessions) / weights.session_decay)
            similar.append((similarity, number, shared[-1]))
    expected = {}
    for similarity, number, last_shared in sorted(similar, reverse=True)[:neighbours]:
        places = {item: place for place, item in enumerate(sessions[number])}
        for item, place in places.items():
            away = abs(place - places[last_shared])
            vote = similarity * idf[item] * math.exp(-away / weights.distance_decay)
            expected[item] = expected.get(item, 0) + vote

    assert votes(sessions, weights, sequence) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_distance_decay_goes_on_past_what_is_computed_ahead():
    session = [0, *[1] * (DISTANCES - 2), 2, 3, 4]
    found = votes([session], replace(PLAIN, distance_decay=9.0), [0])
    expected = {item: math.exp(-session.index(item) / 9) for item in (0, 2, 3, 4)}
    assert {item: found[item] for item in expected} == pytest.approx(expected)


def test_last_clicks_are_in_their_order_with_ages_and_numbers():
    rows, ages, times = last_clicks(np.array([4, 2, 4, 7, 2]))
    assert rows.tolist() == [4, 7, 2]
    assert ages.tolist() == [2, 1, 0]
    assert times.tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    "settings", [{"neighbours": 0}, {"sample": 10_001}, {"click_decay": 0.0}, {"distance_decay": math.nan}]
)
def test_weights_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} is"):
        Weights(**settings)
