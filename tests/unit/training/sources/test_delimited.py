import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srgnn.errors import ConfigError, DataError


def sessions_of(corpus):
    ids = corpus.vocabulary.ids
    return [
        [ids[row] for row in split.session(index)]
        for split in (corpus.train, corpus.validation, corpus.test)
        for index in range(split.num_sessions)
    ]


def test_csv_tsv_and_parquet_give_the_same_corpus(run, write_log, shop_log, tmp_path):
    log = write_log(shop_log)
    _, expected = run(log)
    expected = (sessions_of(expected), expected.train.times.tolist())

    tabs = tmp_path / "clicks.tsv"
    tabs.write_text(log.read_text().replace(",", "\t"), encoding="utf-8")
    _, corpus = run(tabs, settings=['columns.delimiter="\\t"'])
    assert (sessions_of(corpus), corpus.train.times.tolist()) == expected

    session, item, time = (list(column) for column in zip(*shop_log, strict=True))
    moments = pa.array([one * 1000 for one in time], pa.timestamp("ms"))
    for times in (pa.array(time), moments):
        table = pa.table({"session_id": session, "item_id": item, "timestamp": times, "price": [1.5] * len(item)})
        pq.write_table(table, tmp_path / "clicks.parquet")
        _, corpus = run(tmp_path / "clicks.parquet")
        assert (sessions_of(corpus), corpus.train.times.tolist()) == expected


def test_columns_are_found_by_the_names_in_the_recipe(run, write_log, shop_log):
    log = write_log(shop_log, header="visit,sku,at")
    settings = ["columns.session=visit", "columns.item=sku", "columns.time=at"]
    assert run(log, settings=settings)[0]["clicks"] == 60


def test_numeric_parquet_ids_are_texts(run, shop_log, tmp_path):
    session, item, time = (list(column) for column in zip(*shop_log, strict=True))
    codes = [{"a": 10, "b": 9, "c": 200}[one] for one in item]
    numbers = [int(one[1:]) for one in session]
    pq.write_table(pa.table({"session_id": numbers, "item_id": codes, "timestamp": time}), tmp_path / "clicks.parquet")
    assert run(tmp_path / "clicks.parquet")[1].vocabulary.ids == ["10", "200", "9"]


def test_a_parquet_file_without_a_named_column_says_so(run, tmp_path):
    pq.write_table(pa.table({"session": ["1"], "item_id": ["a"], "timestamp": [1]}), tmp_path / "clicks.parquet")
    with pytest.raises(DataError, match="no column 'session_id', it has 'session', 'item_id', 'timestamp'"):
        run(tmp_path / "clicks.parquet")


def test_several_files_are_one_log(run, write_log, shop_log):
    """A session may even go on in the next file."""
    first, second = write_log(shop_log[:31], "one.csv"), write_log(shop_log[31:], "two.csv")
    _, whole = run(write_log(shop_log))
    expected = sessions_of(whole)
    assert sessions_of(run(first, second)[1]) == expected
    assert sessions_of(run(second, first)[1]) == expected


def test_a_folder_of_parquet_files_is_one_log_of_known_size(run, write_log, shop_log, tmp_path):
    """As srgnn export-clicks writes them."""
    folder = tmp_path / "clicks"
    folder.mkdir()
    for number, rows in enumerate((shop_log[:31], shop_log[31:])):
        session, item, time = (list(column) for column in zip(*rows, strict=True))
        moments = pa.array([one * 1000 for one in time], pa.timestamp("ms", tz="UTC"))
        table = pa.table({"session_id": session, "item_id": item, "timestamp": moments, "event_id": [None] * len(item)})
        pq.write_table(table, folder / f"{number}.parquet")
    _, expected = run(write_log(shop_log))
    expected = (sessions_of(expected), expected.train.times.tolist())
    _, corpus = run(folder)
    assert (sessions_of(corpus), corpus.train.times.tolist()) == expected
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert corpus.manifest["inputs"] == [{"name": "clicks", "bytes": size}]


@pytest.mark.parametrize("source", ["diginetica", "retailrocket", "sessions", "yoochoose"])
def test_other_sources_read_no_folder(run, tmp_path, source):
    pq.write_table(pa.table({"session_id": ["1"]}), tmp_path / "clicks.parquet")
    with pytest.raises(ConfigError, match="is a folder: expected files"):
        run(tmp_path, settings=[f"data.source={source}"])
