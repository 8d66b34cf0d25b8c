from pathlib import Path
from types import SimpleNamespace

import pytest

from srgnn import artifact
from srgnn.errors import ArtifactError
from training.history import Epoch, read_history


def made_with(**manifest):
    return SimpleNamespace(path=Path("artifacts/tiny-1"), name="tiny-1", manifest=manifest)


def test_epochs_are_read_with_the_chosen_one():
    records = [
        {"epoch": 1, "loss": 5.5, "recall@20": 0.4, "mrr@20": 0.1, "score": 0.5, "seconds": 9.5},
        {"epoch": 2, "loss": 4.5},
    ]
    found = read_history(made_with(metrics={"epoch": 2, "history": records}))
    assert found.epochs == (Epoch(1, 5.5, 0.4, 0.1, 9.5), Epoch(2, 4.5, None, None, None))
    assert (found.artifact, found.chosen) == ("tiny-1", 2)


def test_recipe_and_provenance_are_texts_by_dotted_name():
    provenance = {
        "recipe": {"name": "demo", "model": {"steps": 1, "hybrid": True}},
        "corpus": {"fingerprint": "e855", "dropped": {}},
        "trained_on": ["train", "validation"],
    }
    found = read_history(made_with(provenance=provenance))
    assert found.recipe == {"name": "demo", "model.steps": "1", "model.hybrid": "True"}
    assert found.provenance == {"corpus.fingerprint": "e855", "trained_on": "train, validation"}
    assert "recipe" in provenance


def test_an_artifact_that_says_nothing_has_an_empty_history(tiny_artifact):
    found = read_history(artifact.load(tiny_artifact))
    assert (found.epochs, found.chosen, found.recipe, found.provenance) == ((), None, {}, {})


def test_a_chosen_epoch_that_is_not_there_is_none():
    assert read_history(made_with(metrics={"epoch": 7, "history": [{"epoch": 1, "loss": 5.5}]})).chosen is None


@pytest.mark.parametrize(
    "manifest",
    [
        {"metrics": {"history": [{"epoch": 1}]}},
        {"metrics": {"history": [{"epoch": 1, "loss": float("nan")}]}},
        {"metrics": {"history": [{"epoch": 1, "loss": "much"}]}},
        {"metrics": {"history": [7]}},
        {"metrics": {"history": 7}},
        {"metrics": 7},
        {"provenance": [7]},
    ],
)
def test_what_is_no_history_is_refused_by_name(manifest):
    with pytest.raises(ArtifactError, match="artifacts/tiny-1 holds no training history"):
        read_history(made_with(**manifest))
