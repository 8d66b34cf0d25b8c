import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import catalogue
from srgnn.scan import int8_is_native


def run(*arguments):
    result = CliRunner().invoke(catalogue.main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout, json.loads(result.stdout.splitlines()[-1])


def test_every_size_search_and_batch_is_measured(tmp_path):
    text, found = run(
        "--size", 100, "--size", 3000, "--batch", 1, "--batch", 3, "--repeats", 1, "--hidden", 16,
        "--plot", tmp_path / "plot.png",
    )  # fmt: skip
    searches = ["int8" if int8_is_native() else "int8-compiled", "float32"]
    assert [(row["items"], row["search"], row["batch"]) for row in found["results"]] == [
        (size, search, batch) for size in (100, 3000) for search in searches for batch in (1, 3)
    ]
    assert all(row["ms"] > 0 and row["floor_ms"] > 0 for row in found["results"])
    assert found["answers"][0]["scored_exactly_float32"] >= 20
    assert found["answers"][0]["int8_identical"] == 1.0
    assert "of_floor" in text
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_an_artifact_is_measured_on_real_sessions(indexed_artifact, tmp_path):
    (tmp_path / "histories.txt").write_text("100 101\n102\n\n")
    _, found = run(
        "--artifact", indexed_artifact, "--histories", tmp_path / "histories.txt", "--batch", 2, "--repeats", 1
    )
    assert found["answers"][0]["sessions"] == 2
    assert found["answers"][0]["ivf_recall"] == 1
    assert found["results"][-1]["search"] == "ivf"


def test_items_scored_exactly_are_counted_only_inside_the_block():
    subject = catalogue.random_subject(500, 8, 2)
    with catalogue.counted() as scored:
        subject.searches["float32"].top_k(subject.vectors, 20)
    counted = scored[0]
    subject.searches["float32"].top_k(subject.vectors, 20)
    assert 40 <= scored[0] == counted


def test_the_floor_reads_all_but_the_last_few_bytes():
    subject = catalogue.random_subject(101, 3, 1)
    assert catalogue._data(subject, "float32").numel() * 8 == 101 * 3 * 4 // 8 * 8


@pytest.mark.parametrize("options", [["--artifact", "x"], ["--corpus", "x"]])
def test_an_artifact_and_sessions_go_together(options):
    result = CliRunner().invoke(catalogue.main, options)
    assert "give --artifact together with" in str(result.exception)


def test_random_items_are_unit_vectors():
    matrix = catalogue.random_subject(50, 8, 2).searches["float32"].matrix
    np.testing.assert_allclose(matrix.norm(dim=1), 1, rtol=1e-5)
