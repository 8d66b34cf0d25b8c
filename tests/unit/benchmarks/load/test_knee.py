import pytest

from benchmarks.load.knee import find_knee


@pytest.mark.parametrize("start", [10, 500, 1990, 2000, 30_000])
@pytest.mark.parametrize("limit", [7, 700, 2000, 12_345])
def test_knee_is_within_five_percent_below_the_true_one(limit, start):
    asked = []

    def holds(rate):
        asked.append(rate)
        return rate <= limit

    found = find_knee(holds, start)
    assert limit / 1.05 <= found <= limit
    assert len(asked) < 28
    assert len(set(asked)) == len(asked)


def test_a_service_that_holds_nothing_has_no_knee():
    assert find_knee(lambda rate: False, 500) is None


def test_search_ends_where_everything_holds():
    assert find_knee(lambda rate: True, 500, highest=4000) == 4000
