import json

import pytest
from click.testing import CliRunner

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


def test_folder_without_an_artifact_is_refused(tmp_path):
    assert "neither manifest.json nor LATEST" in refused("inspect", tmp_path)


def test_inspect_shows_the_manifest_and_what_was_checked(tiny_artifact):
    result, shown = run("inspect", tiny_artifact)
    assert shown["name"].startswith("tiny-")
    assert shown["items"] == 40
    assert shown["checked"] == ["hashes", "shapes", "probes"]
    assert shown["rules"] == {"max_length": 8}
    assert shown["bytes"] == sum(file["bytes"] for file in shown["files"].values())
    assert "  hidden_size: 8" in result.stdout.splitlines()


def test_inspect_refuses_a_flipped_byte(tiny_artifact, tmp_path):
    from shutil import copytree

    name = (tiny_artifact / "LATEST").read_text().strip()
    copy = copytree(tiny_artifact / name, tmp_path / name)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert "model.safetensors is damaged" in refused("inspect", copy)
