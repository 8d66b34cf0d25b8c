"""All the steps against a plain specification, and what a failure leaves behind."""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from srgnn.errors import ConfigError, DataError
from tests.corpora import items_of
from training.config import load_recipe
from training.corpus import Corpus
from training.prepare import prepare


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
    assert items_of(corpus) == expected
    assert corpus.vocabulary.ids == sorted({item for split in expected for session in split for item in session})
    assert summary["rows"] == len(rows)
    assert summary["dropped_rows"] == sum(summary["dropped"].values()) == len(rows) - summary["clicks"]


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


def test_an_unknown_engine_is_refused(write_log, shop_log, tmp_path):
    with pytest.raises(ConfigError, match="engine 'spark' is not supported: expected duckdb"):
        prepare(load_recipe("default"), [write_log(shop_log)], tmp_path / "corpus", engine="spark")
