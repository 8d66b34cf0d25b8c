from collections.abc import Callable
from pathlib import Path

import pytest

from service.rollout import Abandon, Answer, Asker, Commit, Done, Prepare, Rollouts
from service.versions import BUSY, STOPPING, Outcome, Versions, Wanted
from tests.artifacts import folder_with_two, name_latest


class Worker:
    def __init__(self) -> None:
        self.told: list[object] = []

    def tell(self, message: object) -> None:
        self.told.append(message)

    def heard(self) -> list[object]:
        """Since this was last asked."""
        told, self.told = self.told, []
        return told


class Service:
    """Three workers and what their parent knows."""

    def __init__(self, folder: Path, other: Path) -> None:
        self.folder, self.other = folder, other
        self.versions = Versions(folder)
        self.tiny = self.versions.current
        self.workers = [Worker() for _ in range(3)]
        self.rollouts = Rollouts(self.versions, lambda: self.workers)

    def heard(self) -> list[list[object]]:
        return [worker.heard() for worker in self.workers]

    def begin(self, asker: int | None = 1) -> None:
        self.rollouts.begin(Wanted(self.other.name), None if asker is None else Asker(self.workers[asker], 7))

    def done(self, number: int, rollout: int = 1, refused: str | None = None) -> None:
        self.rollouts.hear(self.workers[number], Done(rollout, refused))

    def lose(self, number: int) -> None:
        self.rollouts.lose(self.workers.pop(number))

    @property
    def refusal(self) -> Callable[[str], Outcome]:
        return lambda cause: Outcome(self.tiny.name, self.tiny.name, cause)


@pytest.fixture
def service(tiny_artifact: Path, tmp_path: Path) -> Service:
    _, other = folder_with_two(tiny_artifact, tmp_path / "artifacts")
    return Service(tmp_path / "artifacts", other)


def test_the_first_commits_only_when_the_last_is_ready(service: Service) -> None:
    service.begin()
    assert service.heard() == [[Prepare(1, service.other)]] * 3
    service.done(0)
    service.done(2)
    assert service.heard() == [[], [], []]
    assert service.versions.current == service.tiny
    service.done(1)
    assert service.heard() == [[Commit(1)]] * 3
    assert service.versions.current == service.other


def test_whoever_asked_is_told_when_all_have_swapped(service: Service) -> None:
    service.begin(asker=1)
    for number in range(3):
        service.done(number)
    service.heard()
    service.done(1)
    service.done(0)
    assert service.heard() == [[], [], []]
    service.done(2)
    assert service.heard() == [[], [Answer(7, Outcome(service.tiny.name, service.other.name))], []]
    assert not service.rollouts.under_way


def test_where_one_cannot_all_stay_as_they_are(service: Service) -> None:
    service.begin()
    service.done(0)
    service.heard()
    service.done(2, refused="damaged")
    assert service.heard() == [[Abandon()], [Abandon(), Answer(7, service.refusal("damaged"))], [Abandon()]]
    assert service.versions.current == service.tiny
    assert not service.rollouts.under_way


def test_a_worker_that_dies_before_all_are_ready_ends_it(service: Service) -> None:
    service.begin(asker=1)
    service.heard()
    service.lose(0)
    told_of, _ = service.heard()
    assert [type(message) for message in told_of] == [Abandon, Answer]
    assert "a worker died" in str(told_of[1])


def test_where_the_one_who_asked_died_another_counts_the_outcome(service: Service) -> None:
    service.begin(asker=1)
    service.heard()
    service.lose(1)
    first, second = service.heard()
    assert isinstance(first[-1], Answer)
    assert first[-1].number is None
    assert second == [Abandon()]


def test_a_worker_that_dies_after_that_does_not_hold_up_the_others(service: Service) -> None:
    service.begin(asker=1)
    for number in range(3):
        service.done(number)
    service.done(0)
    service.done(1)
    service.heard()
    service.lose(2)
    assert service.heard() == [[], [Answer(7, Outcome(service.tiny.name, service.other.name))]]
    assert service.versions.current == service.other


def test_a_worker_that_begins_to_serve_meanwhile_takes_part(service: Service) -> None:
    service.begin()
    service.workers.append(Worker())
    service.rollouts.join(service.workers[3])
    for number in range(3):
        service.done(number)
    assert service.workers[3].heard() == [Prepare(1, service.other)]
    service.done(3)
    assert service.heard()[3] == [Commit(1)]


def test_only_one_at_a_time(service: Service) -> None:
    service.begin(asker=1)
    service.heard()
    service.begin(asker=0)
    busy = Outcome(service.tiny.name, service.tiny.name, BUSY, conflict=True)
    assert service.heard() == [[Answer(7, busy)], [], []]
    assert service.rollouts.under_way


def test_what_is_left_of_one_given_up_does_not_count_for_the_next(service: Service) -> None:
    service.begin()
    service.done(0, refused="out of memory")
    service.begin()
    service.heard()
    for number in (1, 2):
        service.done(number, rollout=1)
    service.done(0, rollout=2)
    assert service.heard() == [[], [], []]
    service.done(1, rollout=2)
    service.done(2, rollout=2)
    assert service.heard() == [[Commit(2)]] * 3


def test_what_is_served_already_needs_nothing(service: Service) -> None:
    service.rollouts.begin(Wanted(), Asker(service.workers[2], 3))
    assert service.heard() == [[], [], [Answer(3, Outcome(service.tiny.name, service.tiny.name))]]


def test_what_cannot_be_found_is_refused_before_any_worker_hears_of_it(service: Service) -> None:
    service.rollouts.begin(Wanted(rollback=True), Asker(service.workers[2], 3))
    first, second, third = service.heard()
    assert (first, second) == ([], [])
    assert "there is no model before this one" in str(third)
    name_latest(service.folder, "gone")
    service.rollouts.begin(Wanted())
    assert "gone" in str(service.workers[0].heard())


def test_a_stop_ends_what_not_all_are_ready_for(service: Service) -> None:
    service.begin(asker=0)
    service.heard()
    service.rollouts.stop()
    assert service.workers[0].heard() == [Abandon(), Answer(7, service.refusal(STOPPING))]
    assert service.versions.current == service.tiny
    assert not service.rollouts.under_way


def test_a_stop_does_not_take_back_what_all_were_told_to_serve(service: Service) -> None:
    service.begin(asker=0)
    for number in range(3):
        service.done(number)
    service.heard()
    service.rollouts.stop()
    assert service.heard() == [[Answer(7, Outcome(service.tiny.name, service.other.name))], [], []]
    assert service.versions.current == service.other


def test_a_stop_between_swaps_tells_nobody_anything(service: Service) -> None:
    service.rollouts.stop()
    assert service.heard() == [[], [], []]
