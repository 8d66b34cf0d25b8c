import csv
from dataclasses import replace

import pytest

from srgnn.errors import DataError
from training.config import load_recipe
from training.space import with_values
from training.trials import Trial, best_of, count, write_recipe, write_table


def trial(number, score, outcome="complete", error="", **settings):
    best = {"epoch": 2, "recall@20": score - 0.25, "mrr@20": 0.25, "score": score} if score else {}
    values = {"model.dropout": 0.3, "training.batch_size": 64, **settings}
    return Trial(number, values, outcome, 3, 1.5, best, error)


TRIALS = [
    trial(1, 0.5),
    trial(2, 0.75, **{"model.dropout": 0.0}),
    trial(3, 0.9, "pruned"),
    trial(4, 0.75),
    trial(5, None, "failed", error='the loss became nan,\n"lower" it'),
]


def test_the_best_is_the_first_whole_trial_with_the_best_score():
    assert best_of(TRIALS).number == 2
    assert count(TRIALS, "complete") == 3
    assert count(TRIALS, "pruned") == count(TRIALS, "failed") == 1


def test_where_no_trial_came_to_its_end_the_first_failure_is_told():
    with pytest.raises(DataError, match=r"none of 2 trials .*the loss became nan"):
        best_of([TRIALS[2], TRIALS[4]])


def test_the_table_holds_every_trial(tmp_path):
    write_table(TRIALS, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["outcome"] for row in rows] == ["complete", "complete", "pruned", "complete", "failed"]
    assert rows[1]["model.dropout"] == "0.0"
    assert (rows[1]["best_epoch"], rows[1]["recall@20"], rows[1]["mrr@20"]) == ("2", "0.5", "0.25")
    assert (rows[4]["best_epoch"], rows[4]["recall@20"]) == ("", "")
    assert rows[4]["error"] == TRIALS[4].error


@pytest.mark.parametrize("name", ["demo", "default", "diginetica-paper"])
def test_the_recipe_reads_back_as_the_winner(tmp_path, name):
    odd = ['columns.item=the "item"', r"columns.delimiter=\t", "columns.time=Zeit 🕑", "training.refit=true"]
    recipe = replace(load_recipe(name, odd), name="two\nlines")
    write_recipe(recipe, "c0ffee", TRIALS, tmp_path / "best.toml")
    winner = with_values(recipe, {"model.dropout": 0.0, "training.batch_size": 64})
    assert load_recipe(str(tmp_path / "best.toml")) == replace(winner, name="best")


def test_the_recipes_head_says_where_it_comes_from(tmp_path):
    recipe = load_recipe("demo")
    write_recipe(recipe, "c0ffee", TRIALS, tmp_path / "best.toml")
    head = [line for line in (tmp_path / "best.toml").read_text("utf-8").splitlines() if line.startswith("#")]
    assert "recipe 'demo'" in head[0]
    assert head[1:] == [
        "# Corpus c0ffee",
        "# 5 trials, 1 pruned, 1 failed. Trial 2 is the best:",
        "# validation recall@20 0.5000, mrr@20 0.2500 in epoch 2.",
        "# It was chosen by these figures, so they flatter it: the test split knows better.",
        "# model.dropout = 0.0, was 0.1",
        "# training.batch_size = 64, was 512",
    ]
    own = trial(1, 0.5, **{"model.dropout": 0.1, "training.batch_size": 512})
    write_recipe(recipe, "c0ffee", [own], tmp_path / "best.toml")
    assert "# Nothing was better than the recipe itself.\n" in (tmp_path / "best.toml").read_text("utf-8")
