import os
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from srgnn.errors import ConfigError, DataError
from srgnn.vocabulary import MAX_ITEM_ID_LENGTH
from training import prepare as module
from training.config import load_recipe
from training.corpus import Corpus
from training.prepare import prepare

DAY_S = 86_400
START_S = 1_700_000_000


def splits_of(corpus):
    """Item ids of every session, by split."""
    ids = corpus.vocabulary.ids
    return [
        [[ids[row] for row in split.session(index)] for index in range(split.num_sessions)]
        for split in (corpus.train, corpus.validation, corpus.test)
    ]


def log_of(*sessions):
    """One session of items a day: session s00 is the first."""
    return [
        (f"s{day:02d}", item, START_S + day * DAY_S + click)
        for day, items in enumerate(sessions)
        for click, item in enumerate(items)
    ]


# --- order and cut ---


def test_sessions_are_cut_by_the_time_of_their_first_click(run, write_log, shop_log):
    summary, corpus = run(write_log(reversed(shop_log)), settings=["data.test_share=0.1", "data.validation_share=0.2"])
    starts = [split.times[split.offsets[:-1]] for split in (corpus.train, corpus.validation, corpus.test)]
    expected = (START_S + np.arange(20) * DAY_S) * 1000
    np.testing.assert_array_equal(np.concatenate(starts), expected)
    assert [len(one) for one in starts] == [14, 4, 2]
    assert (summary["train_examples"], summary["validation_examples"], summary["test_examples"]) == (36, 8, 4)


def test_days_take_the_place_of_shares(run, write_log, shop_log):
    _, corpus = run(write_log(shop_log), settings=["data.test_days=2.5", "data.validation_days=1.5"])
    assert [split.num_sessions for split in (corpus.train, corpus.validation, corpus.test)] == [15, 2, 3]


def test_clicks_at_the_same_time_keep_the_order_of_the_log(run, write_log):
    sessions = [(f"s{day:02d}", item, START_S + day) for day in range(10) for item in "cabdzyx"]
    for train in splits_of(run(write_log(sessions))[1])[0]:
        assert "".join(train) == "cabdzyx"


def test_sessions_that_start_together_are_in_the_order_of_their_ids(run, write_log):
    rows = [(name, name, START_S) for name in ("s2", "s10", "s1") for _ in range(2)]
    _, corpus = run(write_log(rows), settings=["data.test_share=0", "data.validation_share=0"])
    assert [session[0] for session in splits_of(corpus)[0]] == ["s1", "s10", "s2"]


def test_an_exact_repeat_of_a_click_is_a_click(run, write_log, shop_log):
    assert run(write_log([*shop_log, shop_log[0]]))[0]["clicks"] == 61


def test_nothing_is_held_out_when_nothing_is_asked(run, write_log, shop_log):
    summary, _ = run(write_log(shop_log), settings=["data.test_share=0", "data.validation_share=0"])
    assert (summary["train_examples"], summary["validation_examples"], summary["test_examples"]) == (40, 0, 0)


def test_a_pause_begins_a_new_session_where_asked(run, write_log):
    clicks = [0, 10, 20, 20 + 1801, 20 + 1802, 20 + 1802 + 1800]
    rows = [(f"s{day}", f"i{at}", START_S + day * DAY_S + at) for day in range(10) for at in clicks]
    _, whole = run(write_log(rows), settings=["data.test_share=0", "data.validation_share=0"])
    assert {len(session) for session in splits_of(whole)[0]} == {6}
    _, cut = run(
        write_log(rows),
        settings=["data.session_gap_minutes=30", "data.test_share=0", "data.validation_share=0"],
    )
    assert [len(session) for session in splits_of(cut)[0]] == [3, 3] * 10


# --- protocols ---


def test_strict_learns_items_and_support_from_train_alone(run, write_log):
    sessions = [*["ab"] * 8, "abr", "abr", "abr", "axbrn"]  # r: 1 click in train, 3 later; n, x: test only
    settings = ["data.minimum_item_support=2", "data.test_share=0.16", "data.validation_share=0.1"]
    summary, corpus = run(write_log(log_of(*sessions)), settings=settings)
    train, validation, test = ([("".join(one)) for one in split] for split in splits_of(corpus))
    assert (train, validation, test) == (["ab"] * 9, ["ab"], ["ab", "ab"])
    assert corpus.vocabulary.ids == ["a", "b"]
    assert summary["dropped"] == {"low_support_item": 1, "unknown_item": 5}


def test_srgnn_counts_support_over_everything(run, write_log):
    sessions = [*["ab"] * 8, "abr", "abr", "abr", "axbrn"]
    settings = [
        "data.protocol=srgnn",
        "data.minimum_item_support=2",
        "data.test_share=0.16",
        "data.validation_share=0.1",
    ]
    summary, corpus = run(write_log(log_of(*sessions)), settings=settings)
    train, validation, test = ([("".join(one)) for one in split] for split in splits_of(corpus))
    assert (train, validation, test) == (["ab"] * 8 + ["abr"], ["abr"], ["abr", "abr"])
    assert summary["dropped"] == {"low_support_item": 2}


def test_srgnn_drops_test_items_that_were_never_seen_before(run, write_log):
    sessions = [*["ab"] * 8, "abv", "abnv"]
    settings = ["data.protocol=srgnn", "data.test_share=0.1", "data.validation_share=0.1"]
    summary, corpus = run(write_log(log_of(*sessions)), settings=settings)
    assert ["".join(one) for one in splits_of(corpus)[2]] == ["abv"]
    assert (corpus.vocabulary.ids, summary["dropped"]) == (["a", "b", "v"], {"unknown_item": 1})


def test_srgnn_keeps_every_item_of_files_that_come_cut(run, write_log):
    train, test = write_log(log_of(*["ab"] * 9), "train.csv"), write_log(log_of("anb"), "test.csv")
    summary, corpus = run(train, test, settings=["data.protocol=srgnn", "data.split=files"])
    assert splits_of(corpus)[2] == [["a", "n", "b"]]
    assert (corpus.vocabulary.ids, summary["dropped"]) == (["a", "b", "n"], {})


def test_three_files_are_train_validation_and_test(run, write_log):
    """Whatever their times, and though their session ids are the same."""
    files = [write_log(log_of(*["abc"] * count), f"{count}.csv") for count in (5, 3, 4)]
    _, corpus = run(*files, settings=["data.split=files"])
    assert [len(split) for split in splits_of(corpus)] == [5, 3, 4]


def test_sessions_that_become_too_short_are_dropped_and_counted(run, write_log):
    sessions = ["a", *["ab"] * 9, "an", "nbn", "ab"]
    settings = ["data.test_share=0.25", "data.validation_share=0.1"]
    summary, corpus = run(write_log(log_of(*sessions)), settings=settings)
    assert splits_of(corpus)[2] == [["a", "b"]]
    assert summary["dropped"] == {"short_session": 3, "unknown_item": 3}


def naive(rows, data):
    """The two protocols on plain lists: the specification that the Ibis steps must meet."""
    sessions = {}
    for position, (session, item, time) in enumerate(rows):
        sessions.setdefault(session, []).append((time, position, item))
    clicks = naive_long([(name, sorted(session)) for name, session in sessions.items()])
    if data.protocol == "srgnn":
        clicks = naive_keep(clicks, naive_supported(clicks, data.minimum_item_support))
    parts = naive_cut(clicks, data)
    if data.protocol == "strict":
        parts[0] = naive_keep(parts[0], naive_supported(parts[0], data.minimum_item_support))
    seen = parts[:1] if data.protocol == "strict" else parts[:2]
    known = {item for part in seen for _, session in part for *_, item in session}
    parts = [*seen, *(naive_keep(part, known) for part in parts[len(seen) :])]
    ordered = [sorted(part, key=lambda one: (one[1][0][0], one[0])) for part in parts]
    return [[[item for *_, item in session] for _, session in part] for part in ordered]


def naive_long(clicks):
    return [one for one in clicks if len(one[1]) >= 2]


def naive_supported(clicks, minimum):
    supports = Counter(item for _, session in clicks for *_, item in session)
    return {item for item, support in supports.items() if support >= minimum}


def naive_keep(clicks, items):
    return naive_long([(name, [click for click in session if click[2] in items]) for name, session in clicks])


def naive_cut(clicks, data):
    parts = []
    for share in (data.test_share, data.validation_share):
        starts = sorted(session[0][0] for _, session in clicks)
        first = starts[-max(1, round(len(starts) * share))] if starts else 0
        parts.insert(0, [one for one in clicks if one[1][0][0] >= first])
        clicks = [one for one in clicks if one[1][0][0] < first]
    return [clicks, *parts]


LOGS = st.lists(
    st.tuples(st.integers(0, 12).map("s{}".format), st.sampled_from("abcdef"), st.integers(0, 40)),
    min_size=20,
    max_size=80,
)


# Without the shrink phase: at a second an example it would run for minutes.
@settings(
    deadline=None,
    max_examples=25,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=LOGS, protocol=st.sampled_from(["srgnn", "strict"]), support=st.integers(1, 3))
def test_any_log_gives_what_the_naive_specification_gives(tmp_path, write_log, rows, protocol, support):
    chosen = ["columns.time_unit=s", f"data.protocol={protocol}", f"data.minimum_item_support={support}"]
    recipe = load_recipe("default", [*chosen, "data.test_share=0.25", "data.validation_share=0.3"])
    expected = naive(rows, recipe.data)
    if not all(expected):
        with pytest.raises(DataError, match="no session is left"):
            prepare(recipe, [write_log(rows)], tmp_path / "none", progress=lambda line: None)
        assert not (tmp_path / "none").exists()
        return
    summary = prepare(recipe, [write_log(rows)], tmp_path / "corpus", progress=lambda line: None)
    corpus = Corpus.open(tmp_path / "corpus")
    assert splits_of(corpus) == expected
    assert corpus.vocabulary.ids == sorted({item for split in expected for session in split for item in session})
    assert summary["rows"] == len(rows)
    assert summary["dropped_rows"] == sum(summary["dropped"].values()) == len(rows) - summary["clicks"]


# --- bad rows ---


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


def test_too_few_sessions_are_an_error_that_names_the_settings(run, write_log):
    with pytest.raises(DataError, match=r"no session is left for the .* set .*data\.test_share"):
        run(write_log(log_of("ab")))


def test_a_tab_separated_file_is_told_from_a_comma_separated_one(run, write_log, shop_log):
    log = write_log(shop_log)
    log.write_text(log.read_text().replace(",", "\t"), encoding="utf-8")
    with pytest.raises(DataError, match=r"wrong delimiter"):
        run(log)


# --- output ---


def test_a_failure_leaves_the_older_corpus_and_no_remains(run, write_log, shop_log, tmp_path):
    run(write_log(shop_log))
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(DataError):
        run(write_log([]))
    assert sorted(os.listdir(tmp_path)) == before
    assert Corpus.open(tmp_path / "corpus").manifest["clicks"] == 60


def test_an_output_that_is_something_else_is_refused_before_any_work(write_log, shop_log, tmp_path):
    lines = []
    with pytest.raises(DataError, match="not empty and not a corpus"):
        prepare(load_recipe("default"), [write_log(shop_log)], tmp_path, progress=lines.append)
    assert lines == []


def test_the_same_log_gives_the_same_bytes(run, write_log, shop_log):
    first = run(write_log(shop_log))[1].manifest
    assert run(write_log(shop_log))[1].manifest == first


def test_the_manifest_holds_recipe_and_inputs(run, write_log, shop_log):
    log = write_log(shop_log)
    summary, corpus = run(log)
    recipe = load_recipe("default", ["columns.time_unit=s", "data.minimum_item_support=1"])
    assert corpus.manifest["settings"] == recipe.as_dict()
    assert corpus.manifest["inputs"] == [{"name": "clicks.csv", "bytes": log.stat().st_size}]
    assert (summary["first_click"], summary["last_click"]) == (
        "2023-11-14T22:13:20.000",
        "2023-12-03T22:13:40.000",
    )


def test_large_splits_are_written_in_blocks_of_whole_sessions(run, write_log, shop_log, monkeypatch):
    whole = splits_of(run(write_log(shop_log))[1])
    for size in (1, 2, 7, 60):
        monkeypatch.setattr(module, "ROWS_PER_BLOCK", size)
        assert splits_of(run(write_log(shop_log))[1]) == whole


def test_an_unknown_engine_is_refused(write_log, shop_log, tmp_path):
    with pytest.raises(ConfigError, match="engine 'spark' is not supported: expected duckdb"):
        prepare(load_recipe("default"), [write_log(shop_log)], tmp_path / "corpus", engine="spark")


def test_an_input_is_needed(tmp_path):
    with pytest.raises(ConfigError, match="found no input: give --input"):
        prepare(load_recipe("default"), [], tmp_path / "corpus")
