"""`srgnn summarize` as a user calls it, on what `srgnn evaluate` wrote."""

import json

import pytest
from click.testing import CliRunner

from srgnn.cli import main
from tests.corpora import random_corpus


def invoke(*args):
    return CliRunner().invoke(main, [*map(str, args)])


@pytest.fixture(scope="module")
def results(tiny_artifact, tiny_recommender, tmp_path_factory):
    """One artifact judged on two corpora, once with and once without baselines."""
    folder = tmp_path_factory.mktemp("results")
    for name, more in (("window-1", ["--baselines"]), ("window-2", [])):
        corpus = random_corpus(folder / name, tiny_recommender.vocabulary).path
        result = invoke("evaluate", tiny_artifact, "--corpus", corpus, "--json", folder / f"{name}.json", *more)
        assert result.exit_code == 0, result.output
    return [folder / "window-1.json", folder / "window-2.json"]


def test_results_of_windows_end_in_a_table_and_one_json_line(results):
    result = invoke("summarize", *results)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found["n"], found["artifacts"], found["corpora"]) == (2, 1, 2)
    assert found["files"] == [str(file) for file in results]
    flat = json.loads(results[0].read_text())
    assert found["models"]["sr-gnn"]["recall@20"]["mean"] == pytest.approx(flat["recall@20"])
    assert "left out, because not every file holds it: item-knn, markov" in result.stderr
    assert result.stdout.startswith("2 results, test split, srgnn protocol")


def test_one_result_stands_beside_all_its_baselines(results):
    found = json.loads(invoke("summarize", results[0]).stdout.splitlines()[-1])
    assert list(found["models"]) == ["sr-gnn", *json.loads(results[0].read_text())["baselines"]]
    assert found["left_out"] == []


def test_a_result_from_before_reports_said_what_was_seen_in_training_is_still_read(results, tmp_path):
    flat = json.loads(results[0].read_text())
    for each in (flat, *flat["baselines"].values()):
        del each["seen_in_training"]
    (tmp_path / "old.json").write_text(json.dumps(flat))
    old, new = (
        json.loads(invoke("summarize", file).stdout.splitlines()[-1]) for file in (tmp_path / "old.json", results[0])
    )
    assert old["models"] == new["models"]


def test_what_does_not_belong_together_is_one_line_on_stderr(results):
    result = invoke("summarize", results[0], results[0])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "give one of them" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_shows_the_loop_over_windows():
    help_text = invoke("summarize", "--help").stdout
    for line in ("for w in corpora/window-*; do", "srgnn evaluate", "srgnn summarize results/*.json"):
        assert line in help_text
