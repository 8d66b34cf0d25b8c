import gzip
import lzma

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srgnn.errors import DataError
from training.sources import files
from training.sources.files import Layout

LAYOUT = Layout(("s", "i"), ",")


@pytest.fixture
def engine():
    engine = ibis.duckdb.connect()
    yield engine
    engine.disconnect()


def write(folder, content, name="log.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(engine, path, layout=LAYOUT, part=0):
    """Rows and rejected lines of one file."""
    table = engine.create_table("log", files.read_text(engine, path, part, layout))
    rows = engine.to_pyarrow(table.order_by("position")).to_pylist()
    return [(row["s"], row["i"]) for row in rows], files.rejected_lines(engine, part + 1)


def test_rows_keep_the_order_of_the_file(engine, tmp_path):
    lines = "".join(f"s{at},i{at}\n" for at in range(200_000))
    rows, rejected = read(engine, write(tmp_path, "s,i\n" + lines))
    assert rows == [(f"s{at}", f"i{at}") for at in range(200_000)]
    assert rejected == {}


def test_positions_of_a_later_file_come_later(engine, tmp_path):
    path = write(tmp_path, "s,i\n1,a\n2,b\n")
    first, second = (engine.to_pyarrow(files.read_text(engine, path, part, LAYOUT)) for part in (0, 1))
    assert max(first["position"].to_pylist()) < min(second["position"].to_pylist())
    assert second["part"].to_pylist() == [1, 1]


def test_extra_columns_quotes_line_ends_and_a_byte_order_mark_are_fine(engine, tmp_path):
    path = write(tmp_path, b'\xef\xbb\xbfs,note,i\r\n1,"a, ""b""",x\r\n2,,"y,z"\r\n')
    assert read(engine, path) == ([("1", "x"), ("2", "y,z")], {})


def test_ids_stay_text(engine, tmp_path):
    assert read(engine, write(tmp_path, "s,i\n007,1e3\n1.0,NULL\n"))[0] == [("007", "1e3"), ("1.0", "NULL")]


def test_lines_that_do_not_fit_are_left_out_and_counted_once(engine, tmp_path):
    path = write(tmp_path, b"s,i\n1,a\n2\n3,c,d,e\n4,\xff\n5,\xff,\xfe\n6,f\n")
    rows, rejected = read(engine, path)
    assert rows == [("1", "a"), ("6", "f")]
    assert sum(rejected.values()) == 4
    assert rejected["not_utf8"] >= 1


def test_a_quote_that_never_ends_costs_lines_but_no_crash(engine, tmp_path):
    rows, rejected = read(engine, write(tmp_path, 's,i\n1,a\n2,"b\n3,c\n'))
    assert rows[0] == ("1", "a")
    assert sum(rejected.values()) >= 1


def test_a_missing_column_is_named_with_those_found_and_a_suggestion(engine, tmp_path):
    path = write(tmp_path, "session,item_id\n1,a\n")
    with pytest.raises(
        DataError, match=r"log\.csv has no column 'item', it has 'session', 'item_id'; did you mean 'item_id'"
    ):
        files.read_text(engine, path, 0, Layout(("session", "item"), ","))


@pytest.mark.parametrize(("mark", "shown"), [("\t", r"\\t"), (";", ";"), ("|", r"\|")])
def test_a_wrong_delimiter_is_told_with_the_likely_one(engine, tmp_path, mark, shown):
    path = write(tmp_path, f"s{mark}i\n1{mark}a\n")
    with pytest.raises(DataError, match=rf"wrong delimiter\?\).*columns\.delimiter=\"{shown}\""):
        files.read_text(engine, path, 0, LAYOUT)


def test_a_doubled_column_is_refused(engine, tmp_path):
    with pytest.raises(DataError, match="names a column twice"):
        files.read_text(engine, write(tmp_path, "s,i,i\n1,a,b\n"), 0, LAYOUT)


def test_a_header_that_is_not_utf8_is_refused(engine, tmp_path):
    with pytest.raises(DataError, match="not UTF-8"):
        files.read_text(engine, write(tmp_path, b"s,\xe9\n1,a\n"), 0, LAYOUT)
    with pytest.raises(DataError, match="not UTF-8"):
        files.read_text(engine, write(tmp_path, "s,i\n1,a\n".encode("utf-16")), 0, LAYOUT)


def test_a_blank_first_line_is_refused(engine, tmp_path):
    with pytest.raises(DataError, match="empty line: expected a header with 's', 'i'"):
        files.read_text(engine, write(tmp_path, "\ns,i\n1,a\n"), 0, LAYOUT)


def test_a_missing_or_empty_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        files.usable(tmp_path / "nowhere.csv", tmp_path)
    with pytest.raises(DataError, match=r"is a folder without a \.parquet file"):
        files.usable(tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"log\.csv is empty"):
        files.usable(write(tmp_path, ""), tmp_path)


def test_gz_and_xz_read_like_the_plain_file(engine, tmp_path):
    text = b"s,i\n1,a\n2,b\n"
    for part, (name, packed) in enumerate(
        {"log.csv.gz": gzip.compress(text), "log.csv.xz": lzma.compress(text)}.items()
    ):
        folder = tmp_path / str(part)
        folder.mkdir()
        path = files.usable(write(tmp_path, packed, name), folder)
        assert engine.to_pyarrow(files.read_text(engine, path, part, LAYOUT))["i"].to_pylist() == ["a", "b"]


def test_cut_off_archives_are_reported(engine, tmp_path):
    text = b"s,i\n" + b"".join(b"%d,a\n" % at for at in range(1000))
    with pytest.raises(DataError, match=r"not a complete \.xz file"):
        files.usable(write(tmp_path, lzma.compress(text)[:-20], "log.csv.xz"), tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        files.read_text(engine, write(tmp_path, b"not gzip", "log.csv.gz"), 0, LAYOUT)


def test_an_unknown_compression_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"compressed as \.zip: expected plain, \.gz or \.xz"):
        files.usable(write(tmp_path, "x", "log.csv.zip"), tmp_path)


def test_a_folder_of_parquet_files_is_one_file_without_hidden_ones(engine, tmp_path):
    for name, rows in {"b": [2, 3], "a": [0, 1], ".c": [9], "d": []}.items():
        pq.write_table(pa.table({"s": pa.array(rows, pa.int64())}), tmp_path / f"{name}.parquet")
    write(tmp_path, "half", ".a.parquet.7.partial")
    write(tmp_path, "not ours", "notes.txt")
    assert files.usable(tmp_path, tmp_path) == tmp_path
    table = engine.to_pyarrow(files.read_parquet(engine, tmp_path, 1, ["s"]).order_by("position"))
    assert table["s"].to_pylist() == [0, 1, 2, 3]
    assert set(table["part"].to_pylist()) == {1}


def test_a_parquet_file_without_a_column_or_that_is_none_is_reported(engine, tmp_path):
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        files.read_parquet(engine, write(tmp_path, "s,i\n", "log.parquet"), 0, ["s"])
