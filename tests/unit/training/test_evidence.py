"""What evidence counts is tested with the training it is part of (``test_loop.py``); here: which trend is beside it."""

import numpy as np
import pytest
from safetensors.torch import load_file

from srgnn.directory import resolve
from srgnn.trend import as_column, trend
from tests.corpora import chain_corpus
from training import loop
from training.config import load_recipe
from training.corpus import concatenate
from training.trend import learnt_trend

ITEMS = 12
SMALL = ["model.hidden_size=8", "training.epochs=1", "training.batch_size=64", "rules.max_length=4"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return chain_corpus(tmp_path_factory.mktemp("c") / "corpus", ITEMS, validated_from=140)


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
