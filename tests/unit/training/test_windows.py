"""The cut itself, and what `prepare` makes of a log in several windows."""

import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from srgnn.errors import ConfigError, DataError
from tests.corpora import DAY_S, START_S
from training.config import DataConfig, SyntheticConfig, load_recipe
from training.corpus import Corpus
from training.prepare import prepare
from training.sources.synthetic import ClickProcess
from training.windows import MS_PER_DAY, cut_windows, require_windows

RECIPE = ("columns.time_unit=s", "data.minimum_item_support=2")


def prepare_windows(log, output, *changes):
    summary = prepare(load_recipe("default", [*RECIPE, *changes]), [log], output, progress=lambda line: None)
    return summary, [Corpus.open(each["output"]) for each in summary["windows"]]


@pytest.fixture(scope="module")
def simulated():
    """(session, item, s) of 600 simulated sessions in 20 days, from the newest to the oldest click."""
    config = SyntheticConfig(sessions=600, items=80, groups=4, days=20.0)
    process = ClickProcess.build(config)
    clicks = process.simulate(config)
    sessions = np.repeat(np.arange(len(clicks.lengths)), clicks.lengths)
    rows = zip(sessions, clicks.items, clicks.times // 1000, strict=True)
    return [(f"s{session}", process.ids[item], int(time)) for session, item, time in rows][::-1]


# --- the cut ---


@given(st.integers(2, 12), st.integers(0, 2 * 10**12), st.integers(20, 10**11))
def test_windows_share_the_time_of_the_log_equally(count, first, length):
    windows = cut_windows(DataConfig(windows=count), first, first + length)
    assert (windows[0].start, windows[-1].end) == (first, first + length + 1)
    assert all(one.end == next_one.start for one, next_one in pairwise(windows))
    lengths = [one.end - one.start for one in windows]
    assert max(lengths) - min(lengths) <= 1
    assert [(one.number, one.of) for one in windows] == [(number, count) for number in range(1, count + 1)]


def test_windows_of_given_days_begin_with_the_log_and_follow_each_other():
    windows = cut_windows(DataConfig(windows=3, window_days=1.5), 1000, 1000 + 20 * MS_PER_DAY)
    half_days = [(one.start - 1000) * 2 / MS_PER_DAY for one in windows]
    assert half_days == [0, 3, 6]
    assert windows[-1].end == 1000 + 4.5 * MS_PER_DAY


def test_windows_longer_than_the_log_are_refused_with_its_length():
    with pytest.raises(DataError, match=r"5 of 3 days do not fit: .* 1970-01-11T00:00:00.000, 10\.0 days; take fewer"):
        cut_windows(DataConfig(windows=5, window_days=3.0), 0, 10 * MS_PER_DAY)
    assert len(cut_windows(DataConfig(windows=4, window_days=3.0), 0, 10 * MS_PER_DAY)) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windows": 5, "protocol": "srgnn"}, r"windows = 5 with data\.protocol = 'srgnn'.*protocol=strict"),
        ({"windows": 5, "split": "files"}, r"windows = 5 with data\.split = 'files'.*split=time"),
        ({"windows": 5, "source": "sessions"}, r"source 'sessions' has no clock.*windows=1"),
        ({"window_days": 3.0}, r"window_days = 3\.0 with data\.windows = 1.*--set data\.windows=5"),
    ],
)
def test_windows_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        require_windows(DataConfig(**changes))
    require_windows(DataConfig(protocol="srgnn", source="sessions", split="files"))


# --- prepared ---


def test_each_window_is_what_its_rows_alone_give(simulated, write_log, tmp_path):
    summary, corpora = prepare_windows(write_log(simulated), tmp_path / "all", "data.windows=3")
    for corpus, said in zip(corpora, summary["windows"], strict=True):
        rows = rows_within(simulated, said["window"]["start"], said["window"]["end"])
        alone, recipe = write_log(rows, "alone.csv"), load_recipe("default", RECIPE)
        expected = prepare(recipe, [alone], tmp_path / "one", progress=lambda line: None)
        assert corpus.fingerprint == Corpus.open(tmp_path / "one").fingerprint
        for name in ("rows", "clicks", "sessions", "dropped", "dropped_rows", "splits"):
            assert said[name] == expected[name] == corpus.manifest[name]


def rows_within(rows, start, end):
    """Rows of the sessions that begin between two dates."""
    first = {}
    for session, _, time in rows:
        first[session] = min(time, first.get(session, time))
    return [row for row in rows if np.datetime64(start) <= np.datetime64(first[row[0]], "s") < np.datetime64(end)]


def test_every_row_of_the_log_is_in_a_window_or_counted(simulated, write_log, tmp_path):
    rows = [*simulated, ("no item", "", START_S), ("stray", "item-01", START_S * 2), ("stray", "item-02", START_S * 2)]
    summary, corpora = prepare_windows(write_log(rows), tmp_path / "all", "data.windows=3", "data.window_days=6")
    assert summary["dropped"]["missing_item"] == 1
    outside = {session for session, *_ in rows} - {
        session for each in summary["windows"] for session, *_ in rows_within(rows, *dates(each))
    }
    assert summary["dropped"]["outside_windows"] == sum(row[0] in outside for row in rows if row[1])
    assert summary["rows"] == len(rows)
    assert summary["clicks"] == sum(split.num_clicks for corpus in corpora for split in splits_of(corpus))
    assert summary["dropped_rows"] == sum(summary["dropped"].values()) == summary["rows"] - summary["clicks"]


def dates(summary):
    return summary["window"]["start"], summary["window"]["end"]


def splits_of(corpus):
    return corpus.train, corpus.validation, corpus.test


# Without the shrink phase, as for test_prepare.py: an example takes a second.
@settings(
    deadline=None,
    max_examples=10,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 2**32),
    windows=st.integers(2, 4),
    held_out=st.sampled_from([(), ("data.test_days=0.5", "data.validation_days=0.5")]),
)
def test_nothing_held_out_is_shared_or_older_than_what_came_before(tmp_path, write_log, seed, windows, held_out):
    """A session is three clicks; clicks of an hour let sessions reach over the end of a window."""
    starts = np.random.default_rng(seed).integers(0, 9 * DAY_S, 100)
    rows = [(f"s{i}", item, at + 1800 * n) for i, at in enumerate(starts) for n, item in enumerate("aba")]
    _, corpora = prepare_windows(write_log(rows), tmp_path / "all", f"data.windows={windows}", *held_out)
    parts = [starts_of(split) for corpus in corpora for split in splits_of(corpus)]
    assert len(parts) == 3 * windows
    assert all(one.max() < later.min() for one, later in pairwise(parts))
    assert sum(map(len, parts)) == len(starts)


def starts_of(split):
    return split.times[split.offsets[:-1]]


def test_items_and_support_are_those_of_the_windows_own_training_part(write_log, tmp_path):
    days = [("ab", "ab", "ab", "ab", "ab", "ab", "ab", "abz"), ("cz", "cz", "cz", "cz", "cz", "cz", "cz", "acz")]
    sessions = [items for window in days for items in window]
    rows = [(f"s{day}", item, START_S + day * DAY_S) for day, items in enumerate(sessions) for item in items]
    _, corpora = prepare_windows(write_log(rows), tmp_path / "all", "data.windows=2", "data.window_days=8")
    assert [corpus.vocabulary.ids for corpus in corpora] == [["a", "b"], ["c", "z"]]
    assert [len(corpus.test.items) for corpus in corpora] == [2, 2]


def test_a_window_that_is_too_small_is_named_beside_the_sizes_of_all(simulated, write_log, tmp_path):
    rows = [*simulated, ("stray", "item-01", START_S * 2), ("stray", "item-02", START_S * 2)]
    with pytest.raises(DataError, match=r"window 2 of 2, 20.*: no session is left.* begin in the windows: 600, 1;"):
        prepare_windows(write_log(rows), tmp_path / "all", "data.windows=2")
    assert os.listdir(tmp_path) == ["clicks.csv"]


def test_fewer_windows_replace_more(simulated, write_log, tmp_path):
    for count in (3, 2):
        prepare_windows(write_log(simulated), tmp_path / "all", f"data.windows={count}")
    assert sorted(os.listdir(tmp_path / "all")) == ["window-1", "window-2"]


def test_simulated_clicks_are_cut_as_well(tmp_path):
    small = ["synthetic.sessions=400", "synthetic.items=60", "synthetic.groups=4", "data.windows=2"]
    summary = prepare(load_recipe("demo", small), [], tmp_path / "all", progress=lambda line: None)
    assert all(0 < each["best_achievable_recall@20"] <= 1 for each in summary["windows"])
