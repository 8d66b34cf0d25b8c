"""Each step on a table small enough to read; test_prepare.py holds their order against a plain specification."""

import itertools

import ibis
import pyarrow as pa
import pytest

from training import steps
from training.steps import TEST, TRAIN, VALIDATION, Cut


@pytest.fixture
def engine():
    return ibis.duckdb.connect(":memory:")


@pytest.fixture
def table(engine):
    names = itertools.count()

    def make(rows, columns):
        data = {name: [row[i] for row in rows] for i, name in enumerate(columns.split())}
        name = f"t{next(names)}"
        engine.con.register(name, pa.table(data))  # create_table of ibis 12.0 does not run on duckdb 2
        return engine.table(name)

    return make


@pytest.fixture
def rows(engine):
    def read(table, *columns):
        found = engine.to_pyarrow(table.select(*columns)).to_pylist()
        return sorted(tuple(entry.values()) for entry in found)

    return read


def test_a_longer_pause_begins_a_new_session(table, rows):
    clicks = table([("s", 0, 0), ("s", 10, 1), ("s", 21, 2), ("r", 100, 3)], "session time position")
    found = rows(steps.split_at_gaps(clicks, 10), "time", "session")
    assert found == [(0, "s#0"), (10, "s#0"), (21, "s#1"), (100, "r#0")]


def test_a_session_is_between_two_times_by_its_first_click(table, rows):
    clicks = table([("a", 4), ("b", 5), ("b", 9), ("c", 7), ("c", 8), ("d", 8)], "session time")
    sessions = table([("a", 4), ("b", 5), ("c", 7), ("d", 8)], "session start")
    between = steps.starting_between(clicks, sessions, 5, 8)
    assert rows(between, "session", "time") == [("b", 5), ("b", 9), ("c", 7), ("c", 8)]


def test_support_counts_clicks_and_length_counts_clicks_of_a_session(table, rows):
    clicks = table([("s", "a"), ("s", "a"), ("r", "b"), ("r", "a")], "session item")
    assert rows(steps.supported(clicks, 2), "session", "item") == [("r", "a"), ("s", "a"), ("s", "a")]
    assert rows(steps.long_sessions(steps.supported(clicks, 2), 2), "session") == [("s",), ("s",)]


def test_support_in_train_leaves_held_out_clicks_alone(table, rows):
    clicks = table([("a", TRAIN), ("a", TRAIN), ("b", TRAIN), ("b", TEST)], "item split")
    assert rows(steps.supported_in_train(clicks, 2), "item", "split") == [("a", TRAIN), ("a", TRAIN), ("b", TEST)]


def test_unknown_items_go_from_later_splits_only(table, rows):
    clicks = table([("a", TRAIN), ("b", VALIDATION), ("b", TEST), ("c", TEST)], "item split")
    assert rows(steps.known_items(clicks, TRAIN), "item", "split") == [("a", TRAIN)]
    assert rows(steps.known_items(clicks, VALIDATION), "item", "split") == [
        ("a", TRAIN),
        ("b", VALIDATION),
        ("b", TEST),
    ]


def test_a_session_belongs_to_the_split_of_its_first_click(table, rows):
    clicks = table([("s", 1, 0), ("s", 9, 0), ("r", 5, 0), ("q", 8, 0)], "session time part")
    split = steps.assign_splits(clicks, steps.session_table(clicks), Cut(test_start=8, validation_start=5))
    assert rows(split, "session", "time", "split") == [
        ("q", 8, TEST),
        ("r", 5, VALIDATION),
        ("s", 1, TRAIN),
        ("s", 9, TRAIN),
    ]


def test_sessions_are_numbered_by_split_start_and_id(table, rows):
    sessions = table([("b", 5, TRAIN), ("a", 5, TRAIN), ("c", 1, TEST), ("d", 4, TRAIN)], "session start split")
    assert rows(steps.number_sessions(sessions), "number", "session") == [(0, "d"), (1, "a"), (2, "b"), (3, "c")]


def test_problems_are_named_in_the_order_of_the_checks(table, rows):
    columns = "session item time bad_time kind"
    clicks = table(
        [
            ("s", "a", 1, "", "view"),
            ("", "a", 1, "", "view"),
            ("s", "", 1, "", "view"),
            ("s", "a", None, "", "view"),
            ("s", "a", None, "soon", "view"),
            ("s", "bad", 1, "", "view"),
            ("s", "a", 1, "", "buy"),
        ],
        columns,
    )
    found = rows(steps.flag_problems(clicks, table([("bad",)], "item")).fill_null({"problem": ""}), "problem")
    assert [problem for (problem,) in found] == [
        "", "bad_item_id", "missing_item", "missing_session", "missing_time", "not_a_view", "unparsable_time"
    ]  # fmt: skip
