import csv
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from srgnn.errors import ConfigError, DataError
from srgnn.vocabulary import Vocabulary
from tests.corpora import split_of
from training import loop
from training.config import load_recipe
from training.corpus import write_corpus
from training.tune import UNPRUNED_TRIALS, tune

ITEMS = 12
SMALL = ["model.hidden_size=8", "training.epochs=2", "training.batch_size=64", "training.learning_rate=0.01"]
SPACE = {
    "model.dropout": FloatDistribution(0.0, 0.5, step=0.1),
    "training.learning_rate": FloatDistribution(1e-3, 1e-1, log=True),
    "training.batch_size": IntDistribution(32, 128),
    "model.hybrid": CategoricalDistribution([True, False]),
}


def recipe(*overrides):
    return load_recipe("demo", [*SMALL, *overrides])


def sessions(seed):
    """Every item is followed by the next one."""
    starts = np.random.default_rng(seed).integers(0, ITEMS, 120).tolist()
    return [[(start + i) % ITEMS for i in range(5)] for start in starts]


def corpus_of(path, seed, validation=slice(80, 100)):
    chain = sessions(seed)
    splits = [split_of(part) for part in (chain[:80], chain[validation], chain[100:])]
    return write_corpus(path, Vocabulary([f"i{row}" for row in range(ITEMS)]), *splits, {"protocol": "strict"})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpus_of(tmp_path_factory.mktemp("c") / "corpus", 0)


def table(output):
    """Rows of trials.csv, but for what they took."""
    with (output / "trials.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def scripted(monkeypatch, *trials):
    """Each training goes like this: scores of its epochs, then perhaps an error."""
    scripts = iter(trials)

    def select(recipe, corpus, device, stopped):
        for epoch, score in enumerate(next(scripts), start=1):
            if isinstance(score, BaseException):
                raise score
            yield {"epoch": epoch, "recall@20": score, "mrr@20": 0.0, "score": score, "seconds": 1.0}

    monkeypatch.setattr(loop, "select", select)


@pytest.fixture(scope="module")
def searched(corpus, tmp_path_factory):
    """The folder of a search of 12 trials, and what it returned."""
    output = tmp_path_factory.mktemp("search")
    return output, tune(recipe(), corpus, SPACE, output, trials=12)


def test_the_first_trial_is_the_recipe_as_train_would_train_it(searched, corpus, tmp_path):
    output, _ = searched
    first = table(output)[0]
    trained = loop.train(recipe(), corpus, tmp_path)
    assert {key: first[key] for key in SPACE} == {
        "model.dropout": "0.1",
        "training.learning_rate": "0.01",
        "training.batch_size": "64",
        "model.hybrid": "True",
    }
    assert float(first["recall@20"]) == trained["validation_recall@20"]
    assert float(first["mrr@20"]) == trained["validation_mrr@20"]


def test_the_written_recipe_trains_to_the_figures_it_was_chosen_by(searched, corpus, tmp_path):
    output, result = searched
    best = load_recipe(result["recipe"])
    assert result["recipe"] == str(output / "best.toml")
    trained = loop.train(best, corpus, tmp_path)
    for name in ("validation_recall@20", "validation_mrr@20", "epoch"):
        assert trained[name] == result["best"][name]
    assert best.model.dropout == result["best"]["settings"]["model.dropout"]
    assert best.data == recipe().data


def test_the_result_adds_up(searched):
    output, result = searched
    rows = table(output)
    scores = [float(row["recall@20"]) + float(row["mrr@20"]) for row in rows if row["outcome"] == "complete"]
    assert result["trials"] == len(rows) == 12
    assert result["pruned"] == sum(row["outcome"] == "pruned" for row in rows)
    assert result["failed"] == 0
    assert result["best"]["validation_recall@20"] + result["best"]["validation_mrr@20"] == max(scores) > scores[0]
    assert len({tuple(row[key] for key in SPACE) for row in rows}) > 6


def test_only_the_search_is_written(searched):
    output, _ = searched
    assert sorted(file.name for file in output.iterdir()) == [".lock", "best.toml", "study.db", "trials.csv"]


def test_the_same_seed_makes_the_same_trials_and_another_does_not(searched, corpus, tmp_path):
    output, _ = searched
    for seed in (1, 2):
        tune(recipe(), corpus, SPACE, tmp_path / str(seed), trials=3, seed=seed)
    assert table(tmp_path / "1") == table(output)[:3] != table(tmp_path / "2")


def test_an_interrupted_search_makes_the_trials_of_a_whole_one(searched, corpus, tmp_path, monkeypatch):
    output, whole = searched
    before, done = loop._update, []

    def update(*args):
        done.append(1)
        if len(done) == 60:
            os.kill(os.getpid(), signal.SIGINT)
        return before(*args)

    monkeypatch.setattr(loop, "_update", update)
    with pytest.raises(loop.Interrupted, match=r"signal 2; .* holds \d of 12 trials"):
        tune(recipe(), corpus, SPACE, tmp_path, trials=12)
    made = table(tmp_path)
    assert 1 <= len(made) < 12
    assert (tmp_path / "best.toml").exists()
    result = tune(recipe(), corpus, SPACE, tmp_path, trials=12)
    assert table(tmp_path) == table(output)
    assert table(tmp_path)[: len(made)] == made
    assert {**result, "recipe": "", "seconds": 0} == {**whole, "recipe": "", "seconds": 0}


def test_a_signal_after_the_last_epoch_loses_no_trial(corpus, tmp_path, monkeypatch):
    before, ends = loop.validate, []

    def validate(*args):
        ends.append(1)
        if len(ends) == 2:  # the last one of the first trial
            os.kill(os.getpid(), signal.SIGTERM)
        return before(*args)

    monkeypatch.setattr(loop, "validate", validate)
    with pytest.raises(loop.Interrupted, match=r"signal 15; .* holds 1 of 2 trials"):
        tune(recipe(), corpus, SPACE, tmp_path, trials=2)
    assert tune(recipe(), corpus, SPACE, tmp_path, trials=2)["trials"] == 2
    assert len(ends) == 4


def test_a_finished_search_goes_on_where_more_trials_are_asked_for(corpus, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.1], [0.2], [0.3])
    assert tune(recipe(), corpus, SPACE, tmp_path, trials=2)["best"]["trial"] == 2
    assert tune(recipe(), corpus, SPACE, tmp_path, trials=3)["best"]["trial"] == 3
    assert tune(recipe(), corpus, SPACE, tmp_path, trials=1)["trials"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": recipe("training.epochs=3")}, "training.epochs was 2 and is now 3"),
        ({"recipe": recipe("data.test_share=0.2")}, "data.test_share was 0.1 and is now 0.2"),
        ({"space": {**SPACE, "training.batch_size": IntDistribution(32, 256)}}, "the space of training.batch_size was"),
        ({"space": {"model.dropout": SPACE["model.dropout"]}}, "and is now None"),
        ({"space": {**SPACE, "model.steps": IntDistribution(1, 3)}}, "the space of model.steps was None"),
        ({"seed": 5}, "--seed was 1 and is now 5"),
    ],
)
def test_another_recipe_space_or_seed_cannot_go_on(searched, corpus, change, message):
    output, _ = searched
    rows = table(output)
    same = {"recipe": recipe(), "corpus": corpus, "space": SPACE, "output": output, "trials": 13}
    with pytest.raises(ConfigError, match=message):
        tune(**{**same, **change})
    assert table(output) == rows


def test_another_corpus_cannot_go_on(searched, tmp_path):
    output, _ = searched
    with pytest.raises(ConfigError, match="the corpus was"):
        tune(recipe(), corpus_of(tmp_path / "other", 1), SPACE, output, trials=13)


class Untouchable:
    def __getattribute__(self, name):
        raise AssertionError(f"the test split was asked for its {name}")


def test_the_test_split_is_not_looked_at(searched, corpus, tmp_path):
    output, _ = searched
    tune(recipe(), replace(corpus, test=Untouchable()), SPACE, tmp_path, trials=3)
    assert table(tmp_path) == table(output)[:3]


def test_a_corpus_without_validation_is_refused_before_anything_is_written(tmp_path):
    lone = corpus_of(tmp_path / "corpus", 0, validation=slice(0, 0))
    with pytest.raises(DataError, match=r"no validation examples .*data\.validation_share"):
        tune(recipe(), lone, SPACE, tmp_path / "out", trials=1)
    assert not (tmp_path / "out").exists()


def test_a_recipe_outside_of_the_space_is_refused_before_anything_is_written(corpus, tmp_path):
    with pytest.raises(ConfigError, match=r"training\.batch_size = 256 of recipe demo"):
        tune(recipe("training.batch_size=256"), corpus, SPACE, tmp_path / "out", trials=1)
    assert not (tmp_path / "out").exists()


def test_a_training_that_diverges_is_a_failed_trial_and_the_search_goes_on(corpus, tmp_path):
    space = {"training.learning_rate": CategoricalDistribution([0.01, 1e30])}
    result = tune(recipe("model.scoring=dot"), corpus, space, tmp_path, trials=5)
    failed = [row for row in table(tmp_path) if row["outcome"] == "failed"]
    assert 1 <= len(failed) == result["failed"] < 5
    assert all("lower training.learning_rate" in row["error"] for row in failed)
    assert result["best"]["settings"] == {"training.learning_rate": 0.01}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), ConfigError("these do not go together")])
def test_settings_that_do_not_work_are_a_failed_trial(corpus, tmp_path, monkeypatch, error):
    scripted(monkeypatch, [0.1, 0.2], [0.9, error], [error], [0.3, 0.1])
    result = tune(recipe(), corpus, SPACE, tmp_path, trials=4)
    assert (result["failed"], result["best"]["trial"], result["best"]["epoch"]) == (2, 4, 1)
    assert [row["error"] for row in table(tmp_path)] == ["", str(error), str(error), ""]


def test_where_every_trial_fails_the_search_says_why(corpus, tmp_path, monkeypatch):
    scripted(monkeypatch, [DataError("nan")], [DataError("inf")])
    with pytest.raises(DataError, match="none of 2 trials came to its end; the first failed like this: nan"):
        tune(recipe(), corpus, SPACE, tmp_path, trials=2)
    assert not (tmp_path / "best.toml").exists()
    assert len(table(tmp_path)) == 2


def test_any_other_error_ends_the_search_and_its_trial_is_made_again(corpus, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.1], [ZeroDivisionError()], [0.2])
    with pytest.raises(ZeroDivisionError):
        tune(recipe(), corpus, SPACE, tmp_path, trials=2)
    assert tune(recipe(), corpus, SPACE, tmp_path, trials=2)["best"]["trial"] == 2


def test_a_hopeless_trial_is_given_up_after_an_epoch_but_not_before_enough_are_known(corpus, tmp_path, monkeypatch):
    good, bad = [0.5, 0.6], [0.1, 0.9]  # bad would win, if it were let
    scripted(monkeypatch, *[good] * (UNPRUNED_TRIALS - 1), [0.1, 0.2], bad, good)
    result = tune(recipe(), corpus, SPACE, tmp_path, trials=UNPRUNED_TRIALS + 2)
    outcomes = [(row["outcome"], row["epochs"]) for row in table(tmp_path)]
    assert outcomes == [("complete", "2")] * UNPRUNED_TRIALS + [("pruned", "1"), ("complete", "2")]
    assert (result["pruned"], result["failed"], result["best"]["trial"]) == (1, 0, 1)


def test_a_trial_is_not_pruned_when_it_is_over(corpus, tmp_path, monkeypatch):
    scripted(monkeypatch, *[[0.5, 0.6]] * UNPRUNED_TRIALS, [0.55, 0.2])
    assert tune(recipe(), corpus, SPACE, tmp_path, trials=UNPRUNED_TRIALS + 1)["pruned"] == 0


def test_trials_neither_refit_nor_train_teachers_but_the_written_recipe_does(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "concatenate", lambda *splits: pytest.fail("a trial was refitted"))
    monkeypatch.setattr(loop, "_train_teachers", lambda *args: pytest.fail("a trial trained teachers"))
    result = tune(recipe("training.refit=true", "training.teachers=2"), corpus, SPACE, tmp_path, trials=1)
    written = load_recipe(result["recipe"]).training
    assert (written.refit, written.teachers) == (True, 2)


def test_where_there_are_neighbours_trials_are_judged_with_them(corpus, tmp_path):
    result = tune(recipe("training.neighbours=true"), corpus, SPACE, tmp_path / "search", trials=2)
    trained = loop.train(load_recipe(result["recipe"]), corpus, tmp_path / "trained")
    for name in ("recall@20", "mrr@20"):
        assert result["best"][f"validation_{name}"] == trained[f"validation_with_neighbours_{name}"]
    assert result["best"]["epoch"] == trained["epoch"]
    assert {row["epochs"] for row in table(tmp_path / "search")} == {"2"}


def test_of_a_trial_with_neighbours_what_they_make_of_it_counts(corpus, tmp_path, monkeypatch):
    def select(recipe, corpus, device, stopped):
        best = 0.9 if len(judged) else 0.5  # alone; beside neighbours the first is better
        judged.append(recipe)
        yield {"epoch": 1, "recall@20": best, "mrr@20": 0.0, "score": best, "seconds": 1.0}
        both = 1.4 - best
        yield {"epoch": 1, "as_served": True, "recall@20": both, "mrr@20": 0.0, "score": both, "seconds": 1.0}

    judged = []
    monkeypatch.setattr(loop, "select", select)
    result = tune(recipe("training.neighbours=true"), corpus, SPACE, tmp_path, trials=2)
    assert (result["best"]["trial"], result["best"]["validation_recall@20"]) == (1, pytest.approx(0.9))


def test_the_setting_that_matters_is_the_important_one(corpus, tmp_path, monkeypatch):
    def select(recipe, corpus, device, stopped):
        score = 1 - abs(np.log10(recipe.training.learning_rate) + 2)  # best at 0.01, whatever else is set
        yield {"epoch": 2, "recall@20": score, "mrr@20": 0.0, "score": score, "seconds": 1.0}

    monkeypatch.setattr(loop, "select", select)
    start = recipe("training.learning_rate=0.09")
    assert tune(start, corpus, SPACE, tmp_path, trials=9)["importance"] is None
    result = tune(start, corpus, SPACE, tmp_path, trials=25)
    importance = result["importance"]
    assert max(importance, key=importance.get) == "training.learning_rate"
    assert sum(importance.values()) == pytest.approx(1, abs=0.01)
    assert result["best"]["settings"]["training.learning_rate"] == pytest.approx(0.01, rel=0.3)


def test_two_searches_do_not_share_a_folder(corpus, tmp_path, monkeypatch):
    def select(recipe, corpus_, device, stopped):
        with pytest.raises(ConfigError, match="another search works in"):
            tune(recipe, corpus, SPACE, tmp_path, trials=1)
        yield {"epoch": 2, "recall@20": 0.5, "mrr@20": 0.0, "score": 0.5, "seconds": 1.0}

    monkeypatch.setattr(loop, "select", select)
    assert tune(recipe(), corpus, SPACE, tmp_path, trials=1)["trials"] == 1


def test_a_damaged_study_and_a_folder_that_is_a_file_are_refused(corpus, tmp_path):
    (tmp_path / "study.db").write_text("no database")
    with pytest.raises(DataError, match=r"study\.db cannot be read: .*not a database\. Delete it"):
        tune(recipe(), corpus, SPACE, tmp_path, trials=1)
    with pytest.raises(ConfigError, match="cannot write to"):
        tune(recipe(), corpus, SPACE, tmp_path / "study.db", trials=1)
