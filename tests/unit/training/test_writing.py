"""The corpus and its manifest."""

import pytest

from srgnn.errors import DataError
from tests.corpora import START_S, items_of, log_of
from training import writing
from training.config import load_recipe


def test_clicks_at_the_same_time_keep_the_order_of_the_log(run, write_log):
    sessions = [(f"s{day:02d}", item, START_S + day) for day in range(10) for item in "cabdzyx"]
    for train in items_of(run(write_log(sessions))[1])[0]:
        assert "".join(train) == "cabdzyx"


def test_sessions_that_start_together_are_in_the_order_of_their_ids(run, write_log):
    rows = [(name, name, START_S) for name in ("s2", "s10", "s1") for _ in range(2)]
    _, corpus = run(write_log(rows), settings=["data.test_share=0", "data.validation_share=0"])
    assert [session[0] for session in items_of(corpus)[0]] == ["s1", "s10", "s2"]


def test_too_few_sessions_are_an_error_that_names_the_settings(run, write_log):
    with pytest.raises(DataError, match=r"no session is left for the .* set .*data\.test_share"):
        run(write_log(log_of("ab")))


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
    whole = items_of(run(write_log(shop_log))[1])
    for size in (1, 2, 7, 60):
        monkeypatch.setattr(writing, "ROWS_PER_BLOCK", size)
        assert items_of(run(write_log(shop_log))[1]) == whole
