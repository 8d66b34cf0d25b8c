import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.clicklog.files import LOOK_BACK_MS, METADATA_KEY, SCHEMA, ClickFiles
from service.clicklog.queue import Entry, StreamId
from srgnn.errors import ConfigError, DataError

NOON = 1_795_521_600_000  # 2026-11-24 12:00 UTC


def click(ms: int, session: str = "s", event: str = "", sequence: int = 0) -> Entry:
    return Entry(StreamId(NOON + ms, sequence), "click", ms, session, f"item {ms}", event)


def rows(files: ClickFiles) -> list[dict[str, object]]:
    return [row for path in sorted(files.folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def names(files: ClickFiles) -> list[str]:
    return sorted(name for name in os.listdir(files.folder) if not name.startswith("."))


def test_a_file_says_what_it_holds(files: ClickFiles) -> None:
    path = files.write([click(0, event="e"), click(7, session="t")], {"clicks": 2})
    assert path.name == f"clicks-2026-11-24-{NOON}-0-{NOON + 7}-0.parquet"
    table = pq.read_table(path)
    assert table.schema.remove_metadata() == SCHEMA
    first, second = table.to_pylist()
    assert first["timestamp"].isoformat() == "2026-11-24T12:00:00+00:00"
    del first["timestamp"], second["timestamp"]
    assert first == {"session_id": "s", "item_id": "item 0", "event_id": "e", "stream_id": f"{NOON}-0"}
    assert second == {"session_id": "t", "item_id": "item 7", "event_id": None, "stream_id": f"{NOON + 7}-0"}
    assert json.loads(table.schema.metadata[METADATA_KEY]) == {"clicks": 2}
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_folder_is_made_and_keeps_its_identity_where_it_is_moved(tmp_path: Path) -> None:
    with ClickFiles(tmp_path / "a" / "b") as files:
        name = files.identity()
        assert len(name) == 32
    (tmp_path / "a" / "b").rename(tmp_path / "c")
    with ClickFiles(tmp_path / "c") as files:
        assert files.identity() == name
    with ClickFiles(tmp_path / "other") as files:
        assert files.identity() != name


def test_one_exporter_at_a_time(files: ClickFiles) -> None:
    with pytest.raises(ConfigError, match=f"another exporter writes to {files.folder}"), ClickFiles(files.folder):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write to .*file: .*give another --output"):
        ClickFiles(tmp_path / "file").__enter__()


def test_what_a_killed_exporter_left_half_done_is_removed(tmp_path: Path) -> None:
    half = tmp_path / ".clicks-2026-11-24-1-0-2-0.parquet.77.partial"
    half.write_bytes(b"half")
    (tmp_path / ".other.partial").touch()
    with ClickFiles(tmp_path) as files:
        assert sorted(os.listdir(files.folder)) == [".exporter", ".other.partial"]


def test_written_clicks_are_found_by_their_ids(files: ClickFiles) -> None:
    batches = [[click(0), click(5)], [click(6), click(9)], [click(9, sequence=1), click(20)]]
    for batch in batches:
        files.write(batch, {})
    asked = [click(5).id, click(6).id, click(7).id, click(9, sequence=1).id, click(30).id]
    assert files.written(asked) == {asked[0], asked[1], asked[3]}
    assert files.written([click(30).id]) == set()
    assert files.written([]) == set()


def test_only_files_that_may_hold_an_id_are_read(files: ClickFiles) -> None:
    files.write([click(0), click(5)], {}).write_bytes(b"damaged")
    files.write([click(6), click(9)], {})
    assert files.written([click(6).id]) == {click(6).id}
    with pytest.raises(DataError, match=r"cannot be read as Parquet.*Move it away"):
        files.written([click(5).id])


def test_events_of_the_last_hour_and_of_these_sessions_are_known(files: ClickFiles) -> None:
    files.write([click(0, event="too old")], {})
    files.write([click(1, event="e1"), click(2, session="t", event="e2"), click(3), click(4, event="e4")], {})
    late = click(LOOK_BACK_MS + 1, event="any")
    assert files.events([late]) == {("s", "e1"), ("s", "e4")}
    assert files.events([click(LOOK_BACK_MS + 1)]) == set()  # no event, nothing to look for


def test_a_forgotten_session_is_gone_from_all_files_and_the_rest_is_as_before(files: ClickFiles) -> None:
    files.write([click(0), click(1, session="t", event="e")], {"clicks": 2})
    files.write([click(2)], {})
    files.write([click(3, session="t")], {})
    untouched = os.stat(files.folder / names(files)[2])
    kept = [row for row in rows(files) if row["session_id"] == "t"]
    before = names(files)
    assert files.forget({"s": click(10).id, "unknown": click(10).id}) == 2
    assert rows(files) == kept
    assert names(files) == before
    assert os.stat(files.folder / before[2]).st_mtime_ns == untouched.st_mtime_ns
    table = pq.read_table(files.folder / before[0])
    assert table.schema.remove_metadata() == SCHEMA
    assert json.loads(table.schema.metadata[METADATA_KEY]) == {"clicks": 2}
    assert files.forget({"s": click(10).id}) == 0


def test_clicks_after_the_session_was_forgotten_stay(files: ClickFiles) -> None:
    files.write([click(0), click(5), click(9, sequence=9), click(9, sequence=10)], {})
    assert files.forget({"s": click(9, sequence=9).id}) == 3
    assert [row["stream_id"] for row in rows(files)] == [f"{NOON + 9}-10"]
    files.write([click(20)], {})
    assert files.forget({"s": click(10).id}) == 1
    assert [row["item_id"] for row in rows(files)] == ["item 20"]


def test_other_files_in_the_folder_are_left_alone(files: ClickFiles) -> None:
    mine = files.folder / "mine.parquet"
    pq.write_table(pa.table({"session_id": ["s"], "stream_id": ["1-0"]}), mine)
    assert files.forget({"s": click(0).id}) == 0
    assert files.written([StreamId(1, 0)]) == set()
    assert pq.read_table(mine).num_rows == 1


def test_the_beat_is_the_time_of_the_hidden_file(files: ClickFiles) -> None:
    hidden = files.folder / ".exporter"
    os.utime(hidden, (0, 0))
    files.beat()
    assert hidden.stat().st_mtime > 1e9
