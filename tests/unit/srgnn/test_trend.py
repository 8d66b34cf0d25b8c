import numpy as np
import pytest

from srgnn.trend import PRIOR_CLICKS, UNIT, as_column, trend
from tests.corpora import split_of


def of(sessions, num_items):
    split = split_of(sessions)
    return trend(np.asarray(split.items), split.offsets, num_items)


def test_what_is_clicked_as_often_as_ever_has_no_trend():
    assert of([[0, 1]] * 400, 3) == pytest.approx([0, 0, 0])


def test_late_clicks_raise_it_and_early_ones_lower_it():
    early, late = [[0, 2]] * 180, [[1, 2]] * 20
    fallen, risen, same = of(early + late, 3)
    assert fallen < -1 < 0 < risen
    assert same == pytest.approx(0)


def test_one_late_click_says_less_than_ten():
    sessions = [[0, 0]] * 200
    once, often = of([*sessions, [1]], 2)[1], of([*sessions, *[[1]] * 10], 2)[1]
    assert 0 < once < often
    assert once < np.log(1 + 20 / PRIOR_CLICKS)


def test_an_item_that_was_never_clicked_has_none_and_no_session_is_no_error():
    assert of([[0]], 2)[1] == 0
    assert of([], 2).tolist() == [0, 0]


def test_as_a_column_it_is_divided_by_its_unit():
    assert (as_column(np.array([1.0, -2.0])) * UNIT).tolist() == [[1], [-2]]
