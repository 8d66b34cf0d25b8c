from srgnn import artifact
from srgnn.vocabulary import Vocabulary
from tests.corpora import split_of
from training.config import load_recipe
from training.corpus import write_corpus
from training.loop import train


def test_provenance_tells_the_settings_that_made_the_corpus(tmp_path):
    settings = {"data": {"source": "delimited", "minimum_item_support": 7}}
    corpus = write_corpus(
        tmp_path / "corpus",
        Vocabulary(["a", "b", "c"]),
        *(split_of([[0, 1], [1, 2], [2, 0]]) for _ in range(3)),
        {"protocol": "strict", "settings": settings, "dropped_rows": 3},
    )
    train(load_recipe("demo", ["model.hidden_size=8", "training.epochs=1"]), corpus, tmp_path / "out")
    provenance = artifact.load(tmp_path / "out").manifest["provenance"]
    assert provenance["recipe"]["data"] == settings["data"]
    assert provenance["recipe"]["training"]["epochs"] == 1
    assert provenance["corpus"]["dropped_rows"] == 3
