import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn import batch
from srgnn.batch import read_text, recommend_file
from srgnn.errors import DataError, InputError, SRGNNError

LINES = "100 101 102\n\n103 nothing-we-sell 104\r\nnothing-we-sell\n105  106 日本語"
HISTORIES = [
    ["100", "101", "102"],
    [],
    ["103", "nothing-we-sell", "104"],
    ["nothing-we-sell"],
    ["105", "106", "日本語"],
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "sessions.txt"
    path.write_bytes(LINES.encode())
    return path


def run(recommender, source, output, k=5):
    return recommend_file(recommender, source, output, k, shown=False)


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_each_line_is_answered_as_if_it_were_alone(tiny_recommender, text, tmp_path):
    run(tiny_recommender, text, tmp_path / "out.jsonl")
    answers = records(tmp_path / "out.jsonl")
    assert len(answers) == len(HISTORIES)
    for history, answer in zip(HISTORIES, answers, strict=True):
        alone = tiny_recommender.recommend([history], 5)[0]
        assert [item["item_id"] for item in answer["items"]] == alone.item_ids
        assert [item["score"] for item in answer["items"]] == alone.scores
        assert answer["source"] == alone.source


def test_result_counts_histories_sources_and_unknown_clicks(tiny_recommender, text, tmp_path):
    result = run(tiny_recommender, text, tmp_path / "out.jsonl").to_json()
    assert (result["histories"], result["clicks"], result["unknown_clicks"]) == (5, 10, 2)
    assert result["sources"] == {"model": 3, "popularity": 2}
    assert result["output"] == str(tmp_path / "out.jsonl")
    assert result["histories_per_second"] > 0


def test_chunks_change_nothing_and_bound_what_is_held(tiny_recommender, text, tmp_path, monkeypatch):
    run(tiny_recommender, text, tmp_path / "whole.jsonl")
    seen = []
    original = tiny_recommender.recommend
    monkeypatch.setattr(tiny_recommender, "recommend", lambda h, k: seen.append(len(h)) or original(h, k))
    monkeypatch.setattr(batch, "CHUNK_HISTORIES", 2)
    run(tiny_recommender, text, tmp_path / "chunks.jsonl")
    assert seen == [1, 2, 2, 1]
    assert (tmp_path / "chunks.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_parquet_in_and_out_gives_the_same_answers_as_text(tiny_recommender, text, tmp_path):
    source = parquet(tmp_path / "in.parquet", session=list("abcde"), items=HISTORIES)
    run(tiny_recommender, text, tmp_path / "text.jsonl")
    run(tiny_recommender, source, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["session", "items", "source"]
    found = table.to_pylist()
    assert [record["session"] for record in found] == list("abcde")
    for record, expected in zip(found, records(tmp_path / "text.jsonl"), strict=True):
        assert record["items"] == expected["items"]
        assert record["source"] == expected["source"]


def test_parquet_of_integer_ids_without_sessions_becomes_json_lines(tiny_recommender, tmp_path):
    source = parquet(tmp_path / "in.parquet", other=["x"], items=[[100, 101, 102]])
    run(tiny_recommender, source, tmp_path / "out.jsonl")
    (record,) = records(tmp_path / "out.jsonl")
    assert [item["item_id"] for item in record["items"]] == tiny_recommender.recommend([HISTORIES[0]], 5)[0].item_ids
    assert "session" not in record


def test_session_of_a_parquet_record_is_kept_in_json_lines(tiny_recommender, tmp_path):
    source = parquet(tmp_path / "in.parquet", session=[7], items=[["100"]])
    run(tiny_recommender, source, tmp_path / "out.jsonl")
    assert records(tmp_path / "out.jsonl")[0]["session"] == "7"


def test_empty_file_gives_an_empty_output(tiny_recommender, tmp_path):
    (tmp_path / "in.txt").touch()
    assert run(tiny_recommender, tmp_path / "in.txt", tmp_path / "out.jsonl").histories == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_byte_order_mark_is_no_part_of_the_first_id(tmp_path):
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbf100 101\n")
    assert [history.items for history in read_text(tmp_path / "in.txt")] == [["100", "101"]]


ITEM = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@given(st.lists(st.lists(ITEM), min_size=1))
def test_text_form_holds_any_ids_without_spaces(tmp_path_factory, histories):
    path = tmp_path_factory.mktemp("text") / "in.txt"
    path.write_text("".join(" ".join(history) + "\n" for history in histories), encoding="utf-8")
    assert [history.items for history in read_text(path)] == histories


BAD_TEXT = {
    "not UTF-8": (b"100\n10\xff1\n", "line 2: not UTF-8"),
    "an id of 300 characters": (b"100\n" + b"x" * 300 + b"\n", "line 2: item id"),
    "tabs instead of spaces": (b"100\t101\n", "line 1: item id '100\\t101' holds a control character"),
    "a line of 2 MiB": (b"1 " * (1 << 20), "line 1: longer than 1,048,576 bytes"),
}


@pytest.mark.parametrize(("content", "message"), BAD_TEXT.values(), ids=BAD_TEXT)
def test_bad_line_is_named_and_leaves_the_old_output(tiny_recommender, tmp_path, content, message):
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_bytes(content)
    output.write_text("old")
    with pytest.raises(DataError) as raised:
        run(tiny_recommender, source, output)
    assert message in str(raised.value)
    assert str(source) in str(raised.value)
    assert output.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", "out.jsonl"}


def test_no_more_of_a_file_without_lines_is_read_than_shows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "MAX_LINE_BYTES", 10)
    (tmp_path / "in.txt").write_bytes(b"100\n" + b"7" * 1000)
    (chunk,) = batch._chunks_of_text(tmp_path / "in.txt")
    assert [len(line) for line in chunk.args[0]] == [4, 11]
    with pytest.raises(DataError, match="line 2: longer than 10 bytes"):
        chunk()


BAD_PARQUET = {
    "no column items": ({"item": [["100"]]}, "has columns item: expected a list column 'items'"),
    "no list": ({"items": ["100 101"]}, "row 1: 'items' is '100 101'"),
    "a null list": ({"items": [["100"], None]}, "row 2: 'items' is None"),
    "a null item": ({"items": [["100", None]]}, "row 1: 'items' is ['100', None]"),
    "an empty id": ({"items": [[""]]}, "row 1: item id is empty"),
}


@pytest.mark.parametrize(("columns", "message"), BAD_PARQUET.values(), ids=BAD_PARQUET)
def test_bad_parquet_record_is_named(tiny_recommender, tmp_path, columns, message):
    source = parquet(tmp_path / "in.parquet", **columns)
    with pytest.raises(DataError) as raised:
        run(tiny_recommender, source, tmp_path / "out.parquet")
    assert message in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet"}


def test_text_named_parquet_is_refused(tiny_recommender, tmp_path):
    (tmp_path / "in.parquet").write_text("100 101\n")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        run(tiny_recommender, tmp_path / "in.parquet", tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("missing.txt", "out.jsonl", "is not a file"),
        ("clicks.csv", "out.jsonl", "ends in .csv: expected plain text"),
        ("sessions.txt", "out.csv", "ends in '.csv': expected .jsonl or .parquet"),
        ("sessions.txt", "no-such-folder/out.jsonl", "does not exist: create it first"),
        ("sessions.txt", "folder.jsonl", "is a folder or the input itself"),
        ("same.parquet", "same.parquet", "is a folder or the input itself"),
    ],
)
def test_unusable_path_is_refused_before_any_work(tiny_recommender, text, tmp_path, source, output, message):
    (tmp_path / "clicks.csv").touch()
    (tmp_path / "same.parquet").touch()
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match=message):
        run(tiny_recommender, tmp_path / source, tmp_path / output)


@pytest.mark.parametrize("k", [0, -1, 41])
def test_bad_k_is_refused_even_for_an_empty_file(tiny_recommender, tmp_path, k):
    (tmp_path / "in.txt").touch()
    with pytest.raises(InputError, match=f"k is {k}"):
        run(tiny_recommender, tmp_path / "in.txt", tmp_path / "out.jsonl", k)
    assert not (tmp_path / "out.jsonl").exists()


def test_parquet_without_pyarrow_says_what_to_install(tiny_recommender, text, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SRGNNError, match=r"pip install 'srgnn\[train\]'"):
        run(tiny_recommender, text, tmp_path / "out.parquet")
