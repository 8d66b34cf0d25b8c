import itertools
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from srgnn import artifact
from srgnn.directory import resolve
from srgnn.errors import ConfigError, DataError
from srgnn.neighbours import VOTERS
from srgnn.trend import as_column
from tests.corpora import chain_corpus, split_of
from training import checkpoint, loop
from training.config import TrainingConfig, load_recipe
from training.corpus import concatenate, write_corpus
from training.examples import Examples
from training.negatives import Negatives
from training.product import habits_of, trend_of

ITEMS = 12
SMALL = [
    "model.hidden_size=8",
    "training.epochs=3",
    "training.batch_size=64",
    "training.learning_rate=0.03",
    "training.patience=3",
    "rules.max_length=4",
]


def recipe(*overrides, name="demo"):
    return load_recipe(name, [*SMALL, *overrides])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return chain_corpus(tmp_path_factory.mktemp("c") / "corpus", ITEMS, validated_from=160)


def weights(path):
    return (resolve(path) / "model.safetensors").read_bytes()


def test_it_learns_and_writes_an_artifact_that_answers(corpus, tmp_path):
    result = loop.train(recipe("training.epochs=8"), corpus, tmp_path)
    loaded = artifact.load(tmp_path)
    assert str(loaded.path) == result["artifact"]
    assert [one.item_ids[0] for one in loaded.recommender.recommend([["i3"], ["i11"], ["i1", "i2"]], 1)] == [
        "i4",
        "i0",
        "i3",
    ]
    assert result["validation_mrr@20"] > 0.95
    seconds = [record["seconds"] for record in loaded.manifest["metrics"]["history"]]
    assert sum(seconds) == pytest.approx(result["seconds"], abs=1)
    assert loaded.manifest["provenance"]["recipe"]["training"]["epochs"] == 8
    assert loaded.manifest["provenance"]["trained_on"] == ["train"]
    assert not (tmp_path / checkpoint.NAME).exists()


def test_it_learns_from_a_sample_of_the_items(corpus, tmp_path):
    result = loop.train(recipe("training.epochs=8", "training.negatives=6"), corpus, tmp_path)
    assert result["validation_mrr@20"] > 0.95


def test_a_sample_no_smaller_than_the_catalogue_is_the_catalogue(corpus, tmp_path):
    for negatives in (0, ITEMS):
        loop.train(recipe(f"training.negatives={negatives}"), corpus, tmp_path / str(negatives))
    assert weights(tmp_path / "0") == weights(tmp_path / str(ITEMS))


def test_a_step_on_a_sample_changes_no_other_item(corpus):
    run = loop._new_run(recipe("training.negatives=1"), corpus, torch.device("cpu"))
    before = run.model.embedding.detach().clone()
    batch = Examples(corpus.train, run.recipe.rules).batch(np.array([0]))
    negatives = Negatives(np.bincount(corpus.train.items, minlength=ITEMS), 1)
    drawn = negatives.draw(batch.targets, np.random.default_rng([run.recipe.training.seed, 0, 0])).rows
    loop._update(run, batch, negatives, None, 0.1)
    changed = np.flatnonzero((run.model.embedding != before).any(dim=1).numpy())
    assert set(changed) <= {*drawn.tolist(), *batch.items.tolist()}
    assert len(changed) >= 2


def test_the_same_seed_trains_the_same_model_and_another_does_not(corpus, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        loop.train(recipe(f"training.seed={seed}"), corpus, tmp_path / name)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def interrupt_at(monkeypatch, updates):
    """SIGINT arrives during this update."""
    done, before = [], loop._update

    def update(*args):
        done.append(1)
        if len(done) == updates:
            os.kill(os.getpid(), signal.SIGINT)
        return before(*args)

    monkeypatch.setattr(loop, "_update", update)


@pytest.mark.parametrize("negatives", [0, 5])
@pytest.mark.parametrize("updates", [1, 10, 11, 25, 35, 50])  # 3 epochs of 10 steps, then 2 of 12 to refit
def test_an_interrupted_training_resumes_bit_for_bit(corpus, tmp_path, monkeypatch, updates, negatives):
    changes = ["training.refit=true", "training.optimizer=adam", "training.schedule=step"]
    settings = recipe(*changes, f"training.negatives={negatives}")
    loop.train(settings, corpus, tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupt_at(patched, updates)
        with pytest.raises(loop.Interrupted, match="signal 2"):
            loop.train(settings, corpus, tmp_path / "parts")
    assert [file.name for file in (tmp_path / "parts").iterdir()] == [checkpoint.NAME]
    torch.manual_seed(999)  # nothing may hang on what the process did before
    loop.train(settings, corpus, tmp_path / "parts", resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


@pytest.mark.parametrize("updates", [10, 55, 60, 61, 75, 91, 125])  # 30 a model, then 24 each on train + validation
def test_an_interrupted_training_with_teachers_resumes_bit_for_bit(corpus, tmp_path, monkeypatch, updates):
    settings = recipe("training.refit=true", "training.teachers=2", "training.negatives=5", "model.dropout=0.2")
    loop.train(settings, corpus, tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupt_at(patched, updates)
        with pytest.raises(loop.Interrupted, match="signal 2"):
            loop.train(settings, corpus, tmp_path / "parts")
    torch.manual_seed(999)
    loop.train(settings, corpus, tmp_path / "parts", resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


@pytest.mark.parametrize("negatives", [0, 5])
def test_a_model_learns_from_its_teachers(corpus, tmp_path, monkeypatch, negatives):
    clock = itertools.count()  # a second between any two looks at it: one a step, one to end an epoch
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    settings = ["training.epochs=8", "training.teachers=2", "training.teacher_share=0.9"]
    result = loop.train(recipe(*settings, f"training.negatives={negatives}"), corpus, tmp_path)
    assert result["validation_mrr@20"] > 0.95
    history = artifact.load(tmp_path).manifest["metrics"]["history"]
    assert [record["epoch"] for record in history] == list(range(1, len(history) + 1))  # its own epochs alone
    assert {record["seconds"] for record in history} == {11}
    assert result["seconds"] == 11 * (2 * 8 + len(history))


def test_teachers_differ_and_learn_what_the_model_of_their_stage_learns(corpus, tmp_path, monkeypatch):
    begun = []

    def fit(run, split, epochs, validation, output, stopped):
        begun.append((run.stage, run.teaching, run.seed, split.num_sessions, validation is not None))
        return before(run, split, epochs, validation, output, stopped)

    before = loop._fit
    monkeypatch.setattr(loop, "_fit", fit)
    loop.train(recipe("training.refit=true", "training.teachers=2", "training.seed=7"), corpus, tmp_path)
    train, everything = corpus.train.num_sessions, corpus.train.num_sessions + corpus.validation.num_sessions
    assert begun == [
        ("select", True, 1007, train, False),
        ("select", True, 2007, train, False),
        ("select", False, 7, train, True),
        ("refit", True, 1007, everything, False),
        ("refit", True, 2007, everything, False),
        ("refit", False, 7, everything, False),
    ]


def test_refit_learns_from_validation_too(corpus, tmp_path):
    result = loop.train(recipe("training.refit=true"), corpus, tmp_path)
    loaded = artifact.load(tmp_path)
    assert result["refit"]
    assert loaded.manifest["provenance"]["trained_on"] == ["train", "validation"]
    assert loaded.recommender.fallback.clicks.sum() == corpus.train.num_clicks + corpus.validation.num_clicks


@pytest.mark.parametrize("refit", ["true", "false"])
def test_neighbours_are_those_of_all_sessions_learnt_from(corpus, tmp_path, refit):
    result = loop.train(recipe("training.neighbours=true", f"training.refit={refit}"), corpus, tmp_path)
    loaded = artifact.load(tmp_path)
    scorer, manifest = loaded.recommender.scorer, loaded.manifest
    assert scorer.neighbours.index.num_sessions == (180 if refit == "true" else 160)
    assert scorer.neighbours.weights == VOTERS
    assert vars(scorer.weights) == manifest["blend"]["weights"]
    assert manifest["metrics"]["validation_with_neighbours"]["mrr@20"] == result["validation_with_neighbours_mrr@20"]
    assert result["validation_with_neighbours_mrr@20"] >= result["validation_mrr@20"]


@pytest.mark.parametrize("refit", ["true", "false"])
def test_habits_are_those_of_all_sessions_learnt_from(corpus, tmp_path, refit):
    result = loop.train(recipe("training.habits=true", f"training.refit={refit}"), corpus, tmp_path)
    loaded = artifact.load(tmp_path)
    scorer, manifest = loaded.recommender.scorer, loaded.manifest
    seen = concatenate(corpus.train, corpus.validation) if refit == "true" else corpus.train
    for found, wanted in zip(scorer.habits, habits_of(seen, loaded.recommender.rules), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert vars(scorer.weights) == manifest["blend"]["habits"]
    assert scorer.weights.votes == 0
    assert manifest["metrics"]["validation_with_habits"]["mrr@20"] == result["validation_with_habits_mrr@20"]
    assert "validation_with_neighbours_mrr@20" not in result


def test_habits_count_beside_neighbours_and_without_them(corpus, tmp_path):
    loop.train(recipe("training.habits=true", "training.neighbours=true"), corpus, tmp_path)
    both, alone = (artifact.load(tmp_path, beside=used).recommender.scorer for used in ("all", "habits"))
    blend = artifact.load(tmp_path).manifest["blend"]
    assert (vars(both.weights), vars(alone.weights)) == (blend["weights"], blend["habits"])
    assert (both.neighbours.index.num_sessions, alone.neighbours.index.num_sessions) == (160, 0)
    assert both.search == f"{alone.search} + neighbours"


def test_evidence_does_not_change_the_model(corpus, tmp_path):
    for name, value in (("with", "true"), ("without", "false")):
        asked = [f"training.{evidence}={value}" for evidence in ("habits", "neighbours")]
        loop.train(recipe(*asked, "training.refit=true"), corpus, tmp_path / name)
    found, wanted = (load_file(resolve(tmp_path / name) / "model.safetensors") for name in ("with", "without"))
    column = found["embedding"][:, -1:]
    found["embedding"] = found["embedding"][:, :-1]
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    everything = concatenate(corpus.train, corpus.validation)
    assert (column.numpy() == as_column(trend_of(everything, len(column), TrainingConfig()))).all()


def test_evidence_without_validation_is_left_out_and_that_is_said(corpus, tmp_path, capsys):
    splits = [corpus.train, split_of([]), corpus.test]
    bare = write_corpus(tmp_path / "bare", corpus.vocabulary, *splits, {"protocol": "strict"})
    asked = recipe("training.habits=true", "training.neighbours=true", "training.epochs=1")
    loop.train(asked, bare, tmp_path / "out")
    assert "habits and neighbours are left out" in capsys.readouterr().err
    assert "blend" not in artifact.load(tmp_path / "out").manifest


def test_the_best_epoch_is_kept_and_patience_ends_the_training(corpus, tmp_path, monkeypatch):
    scores = iter([0.3, 0.5, 0.4, 0.2, 0.1])
    monkeypatch.setattr(loop, "validate", lambda *args: {"recall@20": next(scores), "mrr@20": 0.0})
    kept = []
    before = loop._weights
    monkeypatch.setattr(loop, "_weights", lambda model: kept.append(before(model)) or kept[-1])
    result = loop.train(recipe("training.epochs=5", "training.patience=2"), corpus, tmp_path)
    assert result["epoch"] == 2
    assert len(kept) == 2  # epochs 1 and 2 were each the best so far; 3 and 4 were not; 5 never ran
    assert next(scores) == 0.1
    encoder = artifact.load(tmp_path).recommender.scorer.encoder
    torch.testing.assert_close(encoder["readout.query.weight"], kept[1]["encoder.readout.query.weight"])


def test_validation_is_the_scorer_that_serves(corpus, tmp_path):
    from training.evaluate import judge

    result = loop.train(recipe(), corpus, tmp_path)
    loaded = artifact.load(tmp_path)
    found = judge(loaded.recommender, Examples(corpus.validation, loaded.recommender.rules), k=5, shown=False)
    assert (1 / found.rank).mean() == pytest.approx(result["validation_mrr@20"])


def test_without_validation_sessions_the_last_epoch_counts(corpus, tmp_path):
    empty = split_of([])
    lone = write_corpus(
        tmp_path / "corpus", corpus.vocabulary, corpus.train, empty, corpus.test, {"protocol": "strict"}
    )
    assert loop.train(recipe(), lone, tmp_path / "out")["epoch"] == 3


def test_an_unfinished_training_is_not_overwritten(corpus, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 3)
    with pytest.raises(loop.Interrupted):
        loop.train(recipe(), corpus, tmp_path)
    with pytest.raises(ConfigError, match="--resume"):
        loop.train(recipe(), corpus, tmp_path)


def test_resume_refuses_another_recipe_and_another_corpus(corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.raises(loop.Interrupted):
            loop.train(recipe(), corpus, tmp_path)
    with pytest.raises(ConfigError, match=r"training.batch_size was 64 and is now 32"):
        loop.train(recipe("training.batch_size=32"), corpus, tmp_path, resume=True)
    other = write_corpus(
        tmp_path / "other",
        corpus.vocabulary,
        corpus.validation,
        corpus.validation,
        corpus.test,
        {"protocol": "strict"},
    )
    with pytest.raises(ConfigError, match="another corpus"):
        loop.train(recipe(), other, tmp_path, resume=True)


def test_a_corpus_without_examples_is_refused(corpus, tmp_path):
    lonely = split_of([[1], [2]])
    empty = write_corpus(tmp_path / "c", corpus.vocabulary, lonely, lonely, lonely, {"protocol": "strict"})
    with pytest.raises(DataError, match="no training examples"):
        loop.train(recipe(), empty, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_recipe_whose_name_cannot_name_an_artifact_is_refused_before_the_work(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_new_run", lambda *args: pytest.fail("the training began"))
    with pytest.raises(ConfigError, match="rename"):
        loop.train(replace(recipe(), name="my shop"), corpus, tmp_path)


def test_a_loss_that_is_not_finite_names_the_learning_rate(corpus, tmp_path):
    with pytest.raises(DataError, match=r"lower training\.learning_rate \(now 1e\+30\)"):
        loop.train(recipe("training.learning_rate=1e30", "model.scoring=dot"), corpus, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match="--device cpu"):
        loop.choose_device("cuda")
    assert loop.choose_device("auto").type == "cpu"


def test_an_epoch_of_a_small_log_has_the_steps_it_is_asked_for(corpus, tmp_path, monkeypatch):
    steps, before = [], loop._update
    monkeypatch.setattr(loop, "_update", lambda run, *rest: steps.append(run.step) or before(run, *rest))
    loop.train(recipe("training.epochs=1", "training.batch_size=100000", "training.minimum_steps=20"), corpus, tmp_path)
    assert 20 <= len(steps) <= 21
