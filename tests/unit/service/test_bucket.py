import pytest

from service import bucket
from service.bucket import Bucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bucket, "time", clock)
    return clock


def taken(bucket: Bucket, tries: int) -> int:
    return sum(bucket.take() for _ in range(tries))


def test_a_bucket_holds_a_second_and_fills_up_at_its_rate(clock: Clock) -> None:
    bucket = Bucket(10)
    assert taken(bucket, 50) == 10
    clock.now += 0.55
    assert taken(bucket, 50) == 5
    clock.now += 1000
    assert taken(bucket, 50) == 10


def test_less_than_one_a_second_is_possible(clock: Clock) -> None:
    bucket = Bucket(0.5)
    assert taken(bucket, 5) == 1
    clock.now += 1.9
    assert taken(bucket, 5) == 0
    clock.now += 0.2
    assert taken(bucket, 5) == 1


def test_a_rate_of_zero_is_no_limit(clock: Clock) -> None:
    assert taken(Bucket(0), 10_000) == 10_000
