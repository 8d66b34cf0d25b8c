"""What evidence counts is tested with the training it is part of (``test_loop.py``); here: which trend is taken."""

import numpy as np
import pytest
from safetensors.torch import load_file

from srgnn import artifact
from srgnn.directory import resolve
from srgnn.trend import as_column
from srgnn.vocabulary import Vocabulary
from tests.corpora import split_of
from training import evidence, loop, trend
from training.config import load_recipe
from training.corpus import concatenate, write_corpus
from training.product import pace_of, trend_of

ITEMS = 12
SMALL = ["model.hidden_size=8", "training.epochs=1", "training.batch_size=64", "rules.max_length=4"]


def recipe(*overrides):
    return load_recipe("demo", [*SMALL, "training.habits=true", "training.learn_trend=true", *overrides])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    sessions = [[(start + i) % ITEMS for i in range(5)] for start in rng.integers(0, ITEMS, 200).tolist()]
    splits = [split_of(part) for part in (sessions[:140], sessions[140:180], sessions[180:])]
    vocabulary = Vocabulary([f"i{row}" for row in range(ITEMS)])
    return write_corpus(tmp_path_factory.mktemp("c") / "corpus", vocabulary, *splits, {"protocol": "strict"})


@pytest.fixture
def few_will_do(monkeypatch):
    monkeypatch.setattr(trend, "AT_LEAST", 10)


def judged_as(monkeypatch, formula, learnt):
    """What later sessions say of either; figures of all sessions stay as they are."""
    before, later = evidence.figures, iter([formula, learnt])

    def figures(scorer, examples, first=0):
        if not first:
            return before(scorer, examples)
        assert first == 96  # of 160 clicks of 40 sessions
        return {"recall@20": next(later), "mrr@20": 0.0}

    monkeypatch.setattr(evidence, "figures", figures)


def column_of(folder):
    return load_file(resolve(folder) / "model.safetensors")["embedding"][:, -1:].numpy()


@pytest.mark.parametrize("refit", ["true", "false"])
def test_a_trend_that_later_sessions_confirm_is_served(corpus, tmp_path, monkeypatch, few_will_do, refit):
    judged_as(monkeypatch, 0.4, 0.5)
    learnt, before = [], trend.learn
    monkeypatch.setattr(trend, "learn", lambda *args: learnt.append(before(*args)) or learnt[-1])
    asked = recipe("training.neighbours=true", f"training.refit={refit}")
    result = loop.train(asked, corpus, tmp_path)
    assert len(learnt) == 2, "from the earlier sessions, then from all"
    seen = concatenate(corpus.train, corpus.validation) if refit == "true" else corpus.train
    assert (column_of(tmp_path) == as_column(learnt[-1].of_items(pace_of(seen, ITEMS)))).all()
    manifest = artifact.load(tmp_path).manifest
    assert manifest["blend"]["weights"]["trend"] == manifest["blend"]["habits"]["trend"] == 1.0
    assert (result["later_validation_formula_trend_recall@20"], result["later_validation_learnt_trend_recall@20"]) == (
        0.4,
        0.5,
    )
    assert manifest["metrics"]["later_validation_with_trend_learnt"] == {"recall@20": 0.5, "mrr@20": 0.0}


def test_else_the_formula_stays(corpus, tmp_path, monkeypatch, few_will_do, capsys):
    judged_as(monkeypatch, 0.5, 0.5)
    loop.train(recipe(), corpus, tmp_path / "asked")
    assert "the formula stays" in capsys.readouterr().err
    loop.train(recipe("training.learn_trend=false"), corpus, tmp_path / "not")
    assert (column_of(tmp_path / "asked") == as_column(trend_of(corpus.train, ITEMS))).all()
    asked, without = (artifact.load(tmp_path / name).manifest["blend"] for name in ("asked", "not"))
    assert asked == without


def test_it_is_judged_by_the_scorers_that_would_serve(corpus, tmp_path, few_will_do):
    result = loop.train(recipe("training.epochs=3"), corpus, tmp_path)
    for name in ("recall@20", "mrr@20"):
        assert 0 < result[f"later_validation_formula_trend_{name}"] <= 1
        assert 0 < result[f"later_validation_learnt_trend_{name}"] <= 1


def test_too_few_clicks_teach_nothing_and_that_is_said(corpus, tmp_path, capsys):
    result = loop.train(recipe(), corpus, tmp_path)
    assert "trend: by the formula, 160 validation clicks are too few" in capsys.readouterr().err
    assert "later_validation_learnt_trend_recall@20" not in result


def test_without_evidence_there_is_no_trend_to_learn(corpus, tmp_path, few_will_do):
    result = loop.train(recipe("training.habits=false"), corpus, tmp_path)
    assert "later_validation_learnt_trend_recall@20" not in result


def test_a_training_interrupted_after_it_goes_on_with_it(corpus, tmp_path, monkeypatch, few_will_do):
    judged_as(monkeypatch, 0.4, 0.5)
    asked = recipe("training.refit=true")
    with monkeypatch.context() as patched:
        before = loop._start_over

        def stop(run):
            before(run)
            if run.stage == "refit":
                loop.save_checkpoint(run, tmp_path)
                raise loop.Interrupted("here")

        patched.setattr(loop, "_start_over", stop)
        with pytest.raises(loop.Interrupted):
            loop.train(asked, corpus, tmp_path)
    loop.train(asked, corpus, tmp_path, resume=True)
    everything = concatenate(corpus.train, corpus.validation)
    assert (column_of(tmp_path) != as_column(trend_of(everything, ITEMS))).any()
    assert artifact.load(tmp_path).manifest["blend"]["habits"]["trend"] == 1.0
