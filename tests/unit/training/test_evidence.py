"""What evidence counts is tested with the training it is part of (``test_loop.py``); here: which trend is beside it."""

import numpy as np
import pytest
from safetensors.torch import load_file

from srgnn.directory import resolve
from srgnn.trend import as_column, trend
from srgnn.vocabulary import Vocabulary
from tests.corpora import split_of
from training import loop
from training.config import load_recipe
from training.corpus import concatenate, write_corpus
from training.trend import learnt_trend

ITEMS = 12
SMALL = ["model.hidden_size=8", "training.epochs=1", "training.batch_size=64", "rules.max_length=4"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    sessions = [[(start + i) % ITEMS for i in range(5)] for start in rng.integers(0, ITEMS, 200).tolist()]
    splits = [split_of(part) for part in (sessions[:140], sessions[140:180], sessions[180:])]
    vocabulary = Vocabulary([f"i{row}" for row in range(ITEMS)])
    return write_corpus(tmp_path_factory.mktemp("c") / "corpus", vocabulary, *splits, {"protocol": "strict"})


@pytest.mark.parametrize("refit", ["true", "false"])
@pytest.mark.parametrize("learnt", ["true", "false"])
def test_the_trend_is_that_of_all_sessions_learnt_from_as_the_recipe_wants_it(
    corpus, tmp_path, monkeypatch, learnt, refit
):
    monkeypatch.setattr("training.trend.FEWEST_SESSIONS", 100)
    asked = [*SMALL, "training.habits=true", f"training.learn_trend={learnt}", f"training.refit={refit}"]
    loop.train(load_recipe("demo", asked), corpus, tmp_path)
    seen = concatenate(corpus.train, corpus.validation) if refit == "true" else corpus.train
    sessions = np.asarray(seen.items, np.int64), np.asarray(seen.offsets)
    formula = trend(*sessions, ITEMS)
    wanted = learnt_trend(*sessions, ITEMS, 1) if learnt == "true" else formula
    column = load_file(resolve(tmp_path) / "model.safetensors")["embedding"][:, -1:]
    assert (column.numpy() == as_column(wanted)).all()
    assert (wanted != formula).any() == (learnt == "true")
