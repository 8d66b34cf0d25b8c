import random

import pytest

from benchmarks.faults import Figures
from benchmarks.soak import _rounds, broken_promises, summary, table


def figures(fault="latency", **others):
    usual = {"clicks": 4, "not_answered": 0, "degraded": 0, "added_ms": (1.0, 2.0, 3.0, 4.0), "recovery_seconds": 0.1}
    return Figures(**{"fault": fault, "lost": 0, "lost_seconds": 0.0, "broken": (), **usual, **others})


def test_every_fault_comes_once_even_without_time_and_in_another_order_each_time():
    names = list("abcdefgh")
    order = random.Random(1)
    first, second = list(_rounds(list(names), 0, order)), list(_rounds(list(names), 0, order))
    assert sorted(first) == sorted(second) == names
    assert first != second


def test_rounds_of_a_fault_make_one_row():
    row = summary([figures(degraded=1), figures(degraded=3, added_ms=(9.0,) * 4, recovery_seconds=2.0, lost=1)])
    assert row == {
        "fault": "latency",
        "rounds": 2,
        "clicks": 8,
        "not_answered": 0,
        "degraded": 0.5,
        "lost": 1,
        "added_ms": {"p50": 4.0, "p99": 9.0, "max": 9.0},
        "recovery_seconds": 2.0,
    }
    assert table([row]).splitlines()[-1] == "| latency | 8 | 0 | 50.0% | 1 | 4.0 | 9.0 | 9.0 | 2.00 |"


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (figures(broken=("x is in session s 2 times",)), "latency: x is in session s 2 times"),
        (figures(not_answered=2), "latency: 2 clicks were not answered"),
        (figures(lost=1), "latency: 1 clicks are lost"),
        (figures("worker killed", lost=1), "worker killed: 1 clicks are lost"),
        (figures("Redis killed", lost=1, lost_seconds=2.1), "Redis killed: 1 clicks are lost"),
    ],
)
def test_a_broken_promise_is_told(found, problem):
    [told] = broken_promises(found)
    assert told.startswith(problem)


def test_what_was_never_promised_is_no_broken_promise():
    assert not broken_promises(figures(degraded=4))
    assert not broken_promises(figures("worker killed", not_answered=2))
    assert not broken_promises(figures("Redis killed", lost=9, lost_seconds=1.9))
