import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn.habits import DEPTH, MET, NO_HABITS, PRIOR, fits, learn
from srgnn.loops.habits import NEW_SHARE, RARE, Habits, labelled, shape_of
from srgnn.sequence import SessionRules
from tests.corpora import split_of
from training.examples import Examples


def learnt(sessions, max_length=50):
    examples = Examples(split_of(sessions), SessionRules(max_length=max_length))
    return learn(*examples.batch(np.arange(len(examples))))


def labels_of(sequence):
    labels = np.empty(DEPTH, np.int64)
    return labels[: labelled(np.array(sequence), labels)].tolist()


def odds(habits, sequence):
    """Of the items with a number in the shape, as far as the sequence has them."""
    return habits.odds[shape_of(habits.older, np.array(sequence))][: len(set(sequence))].tolist()


def test_items_are_numbered_from_the_last_click():
    assert labels_of([5]) == [0]
    assert labels_of([8, 5, 5]) == [0, 0, 1]
    assert labels_of([8, 5, 8, 7, 5]) == [0, 1, 2, 0, 2]
    assert labels_of(range(30)) == list(range(DEPTH))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=15), st.permutations(range(5)))
def test_a_shape_does_not_hang_on_the_items(sequence, others):
    assert labels_of(sequence) == labels_of([others[item] for item in sequence])


def test_what_came_next_is_counted_and_smoothed_by_the_shape_with_one_click_less():
    habits = learnt([[1, 1], [1, 1], [1, 1], [1, 2]] * 25)
    new = NEW_SHARE  # nothing is known above the first click
    again = (75 + PRIOR * new) / (100 + PRIOR)
    begun = (75 + PRIOR * again) / (100 + PRIOR)
    assert odds(habits, [6]) == pytest.approx([math.log(begun / (1 - begun))])
    in_between = shape_of(habits.older, np.full(50, 6))  # of no session's beginning: one click is all that is known
    assert habits.odds[in_between, 0] == pytest.approx(math.log(again / (1 - again)))


def test_the_beginning_of_a_session_is_part_of_its_shape():
    habits = learnt([[1, 1, 2, 3], [4, 4, 5, 6]] * 50)  # the first click comes twice, no other does
    assert odds(habits, [7])[0] > 2
    assert odds(habits, [7, 7, 8])[0] < -2


def test_shapes_are_kept_from_twenty_examples_on():
    few, enough = (learnt([[1, 2, 1, 2]] * count + [[1, 2, 3, 4]] * 100) for count in (MET - 1, MET))
    assert len(enough.older) == len(few.older) + 2  # to and fro, and the same with nothing before it
    assert odds(enough, [9, 8, 9])[1] > 0 > odds(few, [9, 8, 9])[1]


def test_an_item_without_a_number_is_rare():
    habits = learnt([[1, 2, 3, 4, 5]] * 50)
    shape = shape_of(habits.older, np.array([6, 7]))
    assert habits.odds[shape, 2:].tolist() == pytest.approx([RARE] * (DEPTH - 2))
    assert np.isfinite(habits.odds).all()


@given(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=14), min_size=1, max_size=4), st.integers(1, 40))
def test_whatever_is_learnt_fits_and_is_found(sessions, times):
    habits = learnt(sessions * times)
    assert fits(habits)
    assert (habits.older.dtype, habits.odds.dtype) == (np.int32, np.float32)
    for session in sessions:
        assert 0 <= shape_of(habits.older, np.array(session)) < len(habits.older)


@given(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=14), min_size=1, max_size=4), st.integers(1, 30))
def test_odds_are_those_of_counting_in_dictionaries(sessions, times):
    habits, counts = learnt(sessions * times), {}
    for session in sessions:
        for length in range(1, len(session)):
            path, recent = path_of(session[:length]), list(dict.fromkeys(session[:length][::-1][:DEPTH]))
            came = recent.index(session[length]) if session[length] in recent else None
            for level in range(len(path) + 1):
                counts.setdefault(path[:level], []).extend([came] * times)
    for session in sessions:
        path = path_of(session)
        while len(path) and len(counts.get(path, [])) < MET:
            path = path[:-1]
        chances = chances_of(path, counts)
        wanted = [math.log(chances[label] / chances[None]) for label in range(len(chances) - 1)]
        shape = shape_of(habits.older, np.array(session))
        assert habits.odds[shape].tolist() == pytest.approx(wanted + [RARE] * (DEPTH - len(wanted)), abs=1e-5)


def path_of(sequence):
    return (*labels_of(sequence), *([DEPTH] if len(sequence) <= DEPTH else []))


def chances_of(path, counts):
    """Label -> its chance; None: all items without one."""
    if not path:
        return {None: 1.0}
    chances, came = chances_of(path[:-1], counts), counts[path]
    if path[-1] == len(chances) - 1 < DEPTH:
        chances |= {path[-1]: NEW_SHARE * chances[None], None: (1 - NEW_SHARE) * chances[None]}
    told = [label if label in chances else None for label in came]
    return {label: (told.count(label) + PRIOR * chance) / (len(told) + PRIOR) for label, chance in chances.items()}


def test_without_habits_everything_is_rare():
    assert fits(NO_HABITS)
    assert shape_of(NO_HABITS.older, np.array([1, 1])) == 0


@pytest.mark.parametrize(
    "habits",
    [
        NO_HABITS._replace(older=np.zeros((2, 1), np.int32)),
        NO_HABITS._replace(odds=np.zeros((1, 1), np.float32)),
        Habits(np.zeros((0, 1), np.int32), np.zeros((0, 0), np.float32)),
        Habits(np.array([[0, 2], [0, 0]], np.int32), np.zeros((2, 1), np.float32)),
        Habits(np.array([[0, -1], [0, 0]], np.int32), np.zeros((2, 1), np.float32)),
        Habits(np.array([[0, 1], [1, 0]], np.int32), np.zeros((2, 1), np.float32)),
        Habits(np.array([[0, 1], [0, 0]], np.int32), np.full((2, 1), np.nan, np.float32)),
    ],
    ids=["lengths", "widths", "no root", "out of the tree", "before it", "in a circle", "nan"],
)
def test_what_is_no_tree_does_not_fit(habits):
    assert not fits(habits)


def test_a_tree_fits():
    assert fits(Habits(np.array([[0, 1], [0, 0]], np.int32), np.zeros((2, 1), np.float32)))
