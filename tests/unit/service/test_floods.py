import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.floods import MAX_KINDS, QUIET_SECONDS, CalmHandler


class Log:
    """A logger over a handler whose clock is ours; a written line is message and what it also stands for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.handler = CalmHandler(self.stream, lambda: self.now)
        self.handler.setFormatter(Formatter())
        self.logger = logging.Logger("service.x", logging.DEBUG)
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[tuple[str, int]]:
        return [(message, int(count)) for message, count in (line.split("|") for line in self.text.splitlines())]

    @property
    def text(self) -> str:
        return self.stream.getvalue()


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.getMessage()}|{getattr(record, 'suppressed', 0)}"


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.handler.close()


def test_the_first_of_a_kind_is_written_and_its_repeats_within_a_second_are_counted_on_the_next(log: Log) -> None:
    for _ in range(1000):
        log.logger.warning("down")
    assert log.lines == [("down", 0)]
    log.now = QUIET_SECONDS
    log.logger.warning("down")
    assert log.lines == [("down", 0), ("down", 999)]
    log.now = 10 * QUIET_SECONDS
    log.logger.warning("down")
    assert log.lines[2:] == [("down", 0)], "counted once"


def test_a_kind_is_not_hidden_by_another(log: Log) -> None:
    for _ in range(5):
        log.logger.warning("down")
    log.logger.warning("slow")
    log.logger.error("down")
    for status in (500, 503, 500):
        log.logger.error("request", extra={"kind": status})
    other = logging.Logger("service.y")
    other.addHandler(log.handler)
    other.warning("down")
    for error in (ValueError(), KeyError(), ValueError()):
        log.logger.error("unexpected", exc_info=error)
    assert [message for message, _ in log.lines] == [
        *("down", "slow", "down", "request", "request", "down", "unexpected", "unexpected")
    ]


def test_arguments_do_not_make_a_kind(log: Log) -> None:
    for size in range(5):
        log.logger.warning("batch of %d", size)
    assert log.lines == [("batch of 0", 0)]


def test_lines_below_a_warning_are_all_written(log: Log) -> None:
    for _ in range(5):
        log.logger.info("request")
    assert log.lines == [("request", 0)] * 5


def test_what_was_only_counted_is_written_at_the_end(log: Log) -> None:
    for _ in range(5):
        log.logger.warning("batch of %d", 3)
    log.logger.warning("once")
    log.handler.close()
    assert log.lines == [("batch of 3", 0), ("once", 0), ("batch of %d", 3)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 2))))
def test_every_line_is_written_or_counted_exactly_once(events: list[tuple[str, float]]) -> None:
    log = Log()
    for message, pause in events:
        log.now += pause
        log.logger.error(message)
    log.handler.close()
    for kind in "abc":
        told = sum(1 + suppressed for message, suppressed in log.lines if message == kind)
        assert told == sum(message == kind for message, _ in events)


def test_memory_is_bounded_and_nothing_is_lost_for_it(log: Log) -> None:
    total = 3 * MAX_KINDS
    for number in range(total):
        for _ in range(3):
            log.logger.warning(f"made up anew: {number}")
        assert len(log.handler._kinds) <= MAX_KINDS
    log.handler.close()
    assert sum(1 + suppressed for _, suppressed in log.lines) == 3 * total


def test_a_late_count_is_not_told_as_part_of_the_request_under_way(log: Log) -> None:
    from service.telemetry import JsonFormatter, request_id

    log.handler.setFormatter(JsonFormatter())
    log.logger.warning("down")
    log.logger.warning("down")
    token = request_id.set("another request")
    log.handler.close()
    request_id.reset(token)
    assert "another request" not in log.text


def test_a_message_that_is_no_text_is_a_kind_too(log: Log) -> None:
    message: Any = {"not": "hashable"}
    for _ in range(2):
        log.logger.warning(message)
    assert len(log.lines) == 1
