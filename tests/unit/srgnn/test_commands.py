import json
import shutil

import pytest
from click.testing import CliRunner

from srgnn import commands
from srgnn.cli import main


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result, json.loads(result.stdout.splitlines()[-1])


def refused(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    return result.stderr


def test_history_is_answered_like_the_recommender_does(tiny_artifact, tiny_recommender):
    result, answer = run("recommend", tiny_artifact, "--history", "100,101, 日本語", "-k", 4)
    expected = tiny_recommender.recommend([["100", "101", "日本語"]], 4)[0]
    assert [item["item_id"] for item in answer["items"]] == expected.item_ids
    assert answer["source"] == "model"
    assert answer["unknown_items"] == []
    assert [line.split()[-1] for line in result.stdout.splitlines()[:-1]] == [
        item.split()[-1] for item in expected.item_ids
    ]


def test_smaller_k_is_a_prefix(tiny_artifact):
    _, few = run("recommend", tiny_artifact, "--history", "100,101", "-k", 3)
    _, many = run("recommend", tiny_artifact, "--history", "100,101")
    assert len(many["items"]) == 20
    assert many["items"][:3] == few["items"]


def test_unknown_item_is_named_and_popularity_answers(tiny_artifact):
    _, answer = run("recommend", tiny_artifact, "--history", "nothing-we-sell")
    assert answer["unknown_items"] == ["nothing-we-sell"]
    assert answer["source"] == "popularity"


def test_empty_history_gets_popular_items(tiny_artifact):
    _, answer = run("recommend", tiny_artifact, "--history", "")
    assert answer["history"] == []
    assert answer["source"] == "popularity"


def test_file_is_answered_into_a_file(tiny_artifact, tmp_path):
    (tmp_path / "in.txt").write_text("100 101\n102\n")
    _, summary = run("recommend", tiny_artifact, "--input", tmp_path / "in.txt", "--output", tmp_path / "o.jsonl")
    assert summary["histories"] == 2
    assert summary["sources"] == {"model": 2}
    assert summary["model"].startswith("tiny-")
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2


def test_file_of_unknown_items_is_warned_about(tiny_artifact, tmp_path):
    (tmp_path / "in.txt").write_text("100,101,102\n")
    result, summary = run("recommend", tiny_artifact, "--input", tmp_path / "in.txt", "--output", tmp_path / "o.jsonl")
    assert summary["unknown_clicks"] == 1
    assert "none of the 1 clicks" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--history", "1", "--input", "x"],
        ["--input", "x"],
        ["--output", "x"],
        ["--history", "1", "--output", "x"],
    ],
)
def test_neither_or_both_ways_of_asking_are_refused(tiny_artifact, options):
    assert "either --history a,b,c or --input FILE" in refused("recommend", tiny_artifact, *options)


def test_k_past_the_catalogue_is_refused_with_its_size(tiny_artifact):
    assert "k is 41: the catalogue has 40 items" in refused("recommend", tiny_artifact, "--history", "100", "-k", 41)


def test_item_id_of_ten_kilobytes_is_refused(tiny_artifact):
    assert "expected at most 256" in refused("recommend", tiny_artifact, "--history", "x" * 10_000)


@pytest.fixture
def histories(tmp_path):
    (tmp_path / "histories.txt").write_text("100 101\n\nunknown\n102\n110 115 120\n", encoding="utf-8")
    return tmp_path / "histories.txt"


def test_index_makes_a_new_artifact_that_answers_the_same(tiny_artifact, histories, tmp_path):
    options = ("--histories", histories, "--output", tmp_path / "indexed", "--lists", 4, "--recall", 1)
    result, made = run("index", tiny_artifact, *options)
    assert "index, items" in result.stderr
    assert (tmp_path / "indexed" / "LATEST").read_text().strip() == made["name"]
    assert made["recall_at_20"] == 1
    assert 1 <= made["probes"] <= made["lists"] == 4
    assert made["histories"] == 3  # an empty one and one of unknown items say nothing
    _, shown = run("inspect", tmp_path / "indexed")
    assert shown["provenance"]["index"]["probes"] == made["probes"]
    assert "index.faiss" in shown["files"]
    exact, found = (run("recommend", path, "--history", "100,101")[1] for path in (tiny_artifact, tmp_path / "indexed"))
    assert found["items"] == exact["items"]


def test_index_goes_beside_the_artifact_and_can_be_made_anew(tiny_artifact, histories, tmp_path):
    folder = shutil.copytree(tiny_artifact, tmp_path / "artifacts")
    _, first = run("index", folder, "--histories", histories, "--lists", 4)
    _, second = run("index", folder, "--histories", histories, "--lists", 5)
    assert {path.name for path in folder.iterdir()} >= {first["name"], second["name"], "LATEST"}
    assert second["lists"] == 5


def test_histories_that_say_nothing_are_refused(tiny_artifact, tmp_path):
    (tmp_path / "histories.txt").write_text("a b\n")
    assert "hold no item of the catalogue" in refused("index", tiny_artifact, "--histories", tmp_path / "histories.txt")
    assert "is not a file" in refused("index", tiny_artifact, "--histories", tmp_path / "gone.txt")


def test_a_long_file_is_sampled(tiny_recommender, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "SAMPLE", 10)
    (tmp_path / "histories.txt").write_text("".join(f"{100 + i % 30}\n" for i in range(3000)))
    sample = commands._sample(tmp_path / "histories.txt", tiny_recommender)
    assert len(sample) == 10
    assert sample != [[str(100 + i)] for i in range(10)]


def test_folder_without_an_artifact_is_refused(tmp_path):
    assert "neither manifest.json nor LATEST" in refused("inspect", tmp_path)


def test_inspect_shows_the_manifest_and_what_was_checked(tiny_artifact):
    result, shown = run("inspect", tiny_artifact)
    assert shown["name"].startswith("tiny-")
    assert shown["items"] == 40
    assert shown["checked"] == ["hashes", "shapes", "probes"]
    assert shown["rules"] == {"max_length": 8}
    assert shown["bytes"] == sum(file["bytes"] for file in shown["files"].values())
    assert "  hidden_size: 16" in result.stdout.splitlines()


def test_inspect_refuses_a_flipped_byte(tiny_artifact, tmp_path):
    from shutil import copytree

    name = (tiny_artifact / "LATEST").read_text().strip()
    copy = copytree(tiny_artifact / name, tmp_path / name)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert "model.safetensors is damaged" in refused("inspect", copy)
