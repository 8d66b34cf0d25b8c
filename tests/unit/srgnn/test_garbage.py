import gc
import weakref
from collections.abc import Iterator

import pytest

from srgnn.garbage import CONTAINERS, settle


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def settled() -> Iterator[None]:
    before = gc.get_threshold()
    settle()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def looks() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


@pytest.mark.usefixtures("settled")
def test_what_was_there_is_looked_through_no_more() -> None:
    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects()) < 1_000


@pytest.mark.usefixtures("settled")
def test_the_requests_of_a_moment_are_no_reason_to_look_and_cycles_are_still_found() -> None:
    before = looks()
    for _ in range(10):
        assert [[] for _ in range(CONTAINERS // 2)]
    assert looks() == before
    first = weakref.ref(Cycle())
    assert first() is not None
    for _ in range(2 * CONTAINERS):
        Cycle()
    assert first() is None
