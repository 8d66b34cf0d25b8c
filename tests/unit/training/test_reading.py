"""Which rows of a log are used, and which logs are refused."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srgnn.errors import ConfigError, DataError
from srgnn.vocabulary import MAX_ITEM_ID_LENGTH
from tests.corpora import DAY_S, START_S, items_of
from training.config import load_recipe
from training.prepare import prepare


def test_unusable_rows_are_dropped_and_counted_by_reason(run, write_log, shop_log):
    long = "x" * (MAX_ITEM_ID_LENGTH + 1)
    bad = [
        ("", "a", START_S),
        ("s1", "", START_S),
        ("s1", "a", ""),
        ("s1", "a", "soon"),
        ("s1", long, START_S),
        ("s1", "a\u2028b", START_S),
    ]
    summary, corpus = run(write_log([*bad, *shop_log]))
    assert summary["dropped"] == {
        "missing_session": 1,
        "missing_item": 1,
        "missing_time": 1,
        "unparsable_time": 1,
        "bad_item_id": 2,
    }
    assert (summary["rows"], summary["clicks"], summary["dropped_rows"]) == (66, 60, 6)
    assert corpus.manifest["dropped"] == summary["dropped"]


def test_the_longest_item_id_is_kept(run, write_log, shop_log):
    longest = "x" * MAX_ITEM_ID_LENGTH
    _, corpus = run(write_log([(session, longest if item == "a" else item, time) for session, item, time in shop_log]))
    assert longest in corpus.vocabulary.ids


def test_ids_that_are_not_utf8_are_dropped_and_counted(run, write_log, shop_log):
    log = write_log(shop_log)
    log.write_bytes(log.read_bytes() + f"s1,caf\u00e9,{START_S}\n".encode("latin-1"))
    assert run(log)[0]["dropped"] == {"not_utf8": 1}


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=200))
def test_any_bytes_after_a_log_are_read_counted_or_refused(run, write_log, shop_log, tail):
    log = write_log(shop_log)
    log.write_bytes(log.read_bytes() + tail)
    with suppress(DataError):
        summary, corpus = run(log)
        assert summary["dropped_rows"] == sum(summary["dropped"].values()) == summary["rows"] - summary["clicks"]
        assert set("abc") <= set(corpus.vocabulary.ids)


def test_more_than_a_hundred_files_are_one_log(run, write_log, shop_log):
    logs = [write_log([row], f"{at:03d}.csv") for at, row in enumerate(shop_log * 3)]
    assert run(*logs)[0]["clicks"] == 180


def test_a_file_that_is_not_utf8_at_all_is_an_error(run, write_log, shop_log):
    log = write_log((session, f"\u00e9{item}", time) for session, item, time in shop_log)
    log.write_bytes(log.read_text(encoding="utf-8").encode("latin-1"))
    with pytest.raises(DataError, match=r"60 of 60 lines .*not_utf8.*UTF-8"):
        run(log)


def test_half_of_the_times_may_be_unreadable(run, write_log, shop_log):
    unreadable = [(session, item, "soon") for session, item, _ in shop_log]
    assert run(write_log([*shop_log, *unreadable]))[0]["dropped"] == {"unparsable_time": 60}


def test_more_than_half_unreadable_times_are_an_error_with_an_example(run, write_log, shop_log):
    unreadable = [(session, item, "soon") for session, item, _ in [*shop_log, shop_log[0]]]
    with pytest.raises(DataError, match=r"61 of 121 times cannot be read, for example 'soon'.*ISO 8601"):
        run(write_log([*shop_log, *unreadable]))


@pytest.mark.parametrize(("unit", "scale", "remedy"), [("iso", 1, "s"), ("iso", 1000, "ms"), ("s", 1000, "ms")])
def test_times_in_another_unit_are_never_guessed_but_the_right_setting_is_named(
    run, write_log, shop_log, unit, scale, remedy
):
    log = write_log((session, item, time * scale) for session, item, time in shop_log)
    with pytest.raises(DataError, match=rf"--set columns\.time_unit={remedy}$"):
        run(log, settings=[f"columns.time_unit={unit}"])


def test_seconds_read_as_milliseconds_give_a_warning(write_log, shop_log, tmp_path):
    lines = []
    recipe = load_recipe("default", ["columns.time_unit=ms"])
    prepare(recipe, [write_log(shop_log)], tmp_path / "corpus", progress=lines.append)
    assert any("dated 1970-01-20" in line and "--set columns.time_unit=s" in line for line in lines)


def test_a_log_without_a_usable_row_is_an_error(run, write_log):
    with pytest.raises(DataError, match="no usable click in 2 rows: 2 missing_item"):
        run(write_log([("s1", "", START_S), ("s2", "", START_S)]))
    with pytest.raises(DataError, match="no usable click in 0 rows"):
        run(write_log([]))


def test_a_tab_separated_file_is_told_from_a_comma_separated_one(run, write_log, shop_log):
    log = write_log(shop_log)
    log.write_text(log.read_text().replace(",", "\t"), encoding="utf-8")
    with pytest.raises(DataError, match=r"wrong delimiter"):
        run(log)


def test_a_pause_begins_a_new_session_where_asked(run, write_log):
    clicks = [0, 10, 20, 20 + 1801, 20 + 1802, 20 + 1802 + 1800]
    rows = [(f"s{day}", f"i{at}", START_S + day * DAY_S + at) for day in range(10) for at in clicks]
    _, whole = run(write_log(rows), settings=["data.test_share=0", "data.validation_share=0"])
    assert {len(session) for session in items_of(whole)[0]} == {6}
    _, cut = run(
        write_log(rows),
        settings=["data.session_gap_minutes=30", "data.test_share=0", "data.validation_share=0"],
    )
    assert [len(session) for session in items_of(cut)[0]] == [3, 3] * 10


def test_an_exact_repeat_of_a_click_is_a_click(run, write_log, shop_log):
    assert run(write_log([*shop_log, shop_log[0]]))[0]["clicks"] == 61


def test_an_input_is_needed(tmp_path):
    with pytest.raises(ConfigError, match="found no input: give --input"):
        prepare(load_recipe("default"), [], tmp_path / "corpus")
