import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from benchmarks import grow
from srgnn import artifact
from tests.conftest import TINY_ITEMS, tiny_vocabulary
from training.corpus import Split, write_corpus


@pytest.fixture
def corpus(tmp_path):
    split = Split(np.array([0, 1, 2, 3, 4], np.int32), np.array([0, 2, 5]), np.arange(5))
    write_corpus(tmp_path / "corpus", tiny_vocabulary(), split, split, split, {})
    return tmp_path / "corpus"


def run(*arguments):
    result = CliRunner().invoke(grow.main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_a_grown_artifact_loads_and_keeps_the_real_items(tiny_artifact, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(grow, "BLOCK", 32)  # real items end inside a block
    result = run(
        tiny_artifact, "--items", 100, "--output", tmp_path / "grown", "--corpus", corpus,
        "--histories", tmp_path / "histories.txt",
    )  # fmt: skip
    old, new = artifact.load(tiny_artifact), artifact.load(tmp_path / "grown")
    assert result["artifact"] == str(new.path)
    assert new.recommender.vocabulary.ids[:TINY_ITEMS] == old.recommender.vocabulary.ids
    matrix = new.recommender.scorer.catalogue.matrix
    assert torch.equal(matrix[:TINY_ITEMS], old.recommender.scorer.catalogue.matrix)
    assert bool(new.recommender.scorer.catalogue.servable.all())
    for row, item in enumerate(new.recommender.vocabulary.ids[TINY_ITEMS:], start=TINY_ITEMS):
        source, _, number = item.rpartition("~")
        assert int(number) == row
        real = old.recommender.scorer.catalogue.matrix[old.recommender.vocabulary.row(source)]
        torch.testing.assert_close(matrix[row].norm(), real.norm())
    lines = (tmp_path / "histories.txt").read_text().splitlines()
    assert len(lines) == 2
    assert all(len(new.recommender.sequence(line.split())) >= 1 for line in lines)
    assert set(result["nearest_cosine"]) == {"real", "grown"}


def test_a_copy_is_turned_by_the_angle_of_its_source():
    matrix = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    sources = np.concatenate([np.arange(50), np.zeros(20, int)]).astype(np.int32)
    turn = grow.Turn.of(matrix, sources)
    rows = torch.from_numpy(sources).long()
    copies = turn(matrix[rows], rows, torch.Generator().manual_seed(0))
    cosine = torch.nn.functional.cosine_similarity(copies, matrix[rows])
    torch.testing.assert_close(cosine, turn.cosine[rows])


def test_a_created_file_is_a_safetensors_file(tmp_path):
    tensors = grow.create(tmp_path / "x.safetensors", {"a": ("F32", (3, 2)), "b": ("I8", (5,)), "c": ("I64", (2,))})
    tensors["a"][:], tensors["b"][:], tensors["c"][:] = 1.5, -7, 1 << 40
    for array in tensors.values():
        array.flush()
    read = load_file(tmp_path / "x.safetensors")
    assert read["a"].tolist() == [[1.5, 1.5]] * 3
    assert read["b"].tolist() == [-7] * 5
    assert read["c"].tolist() == [1 << 40] * 2
    save_file(read, tmp_path / "y.safetensors")


def test_fewer_items_than_there_are_is_refused(tiny_artifact, tmp_path):
    result = CliRunner().invoke(grow.main, [str(tiny_artifact), "--items", "39", "--output", str(tmp_path / "x")])
    assert "has 40 already" in str(result.exception)
