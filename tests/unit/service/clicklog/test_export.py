"""Whole exports in this process, against a real Redis; tests/integration/test_export_clicks.py kills real ones."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from service.clicklog.export import Exporter, without_repeats
from service.clicklog.files import METADATA_KEY, ClickFiles
from service.clicklog.queue import ClickQueue, Entry, StreamId
from service.clicklog.stream import STREAM
from srgnn.errors import StoreUnavailable
from tests.click_stream import Writer
from tests.redis_server import RedisServer

Make = Callable[..., Exporter]


def drain(exporter: Exporter) -> dict[str, int]:
    """What was counted, without what was not."""
    exporter.drain(lambda: False)
    return {name: count for name, count in exporter.result().items() if count}


def items(files: ClickFiles) -> list[str]:
    paths = sorted(files.folder.glob("*.parquet"))
    return [item for path in paths for item in pq.read_table(path)["item_id"].to_pylist()]


def test_clicks_go_to_files_and_out_of_redis(writer: Writer, exporter: Make, files: ClickFiles) -> None:
    for item in "abcde":
        writer.click("s", item)
    assert drain(exporter(entries=2)) == {"files": 3, "clicks": 5}
    assert items(files) == list("abcde")
    assert writer.redis.xlen(STREAM) == 0


def test_nothing_to_export_is_no_file(exporter: Make, files: ClickFiles) -> None:
    assert drain(exporter()) == {}
    assert list(files.folder.glob("*.parquet")) == []


def test_a_repeated_event_of_a_session_is_one_click(writer: Writer, exporter: Make, files: ClickFiles) -> None:
    for session, item, event in [("s", "a", "1"), ("s", "b", "2"), ("s", "a", "1"), ("t", "c", "1"), ("s", "d", "")]:
        writer.click(session, item, event)
    writer.click("s", "e", "")
    assert drain(exporter()) == {"files": 1, "clicks": 5, "duplicates": 1}
    writer.click("s", "b", "2")  # in a later batch, by a later exporter
    writer.click("t", "f", "2")
    assert drain(exporter()) == {"files": 1, "clicks": 1, "duplicates": 1}
    assert items(files) == ["a", "b", "c", "d", "e", "f"]


def test_only_duplicates_are_no_file_and_out_of_redis(writer: Writer, exporter: Make, files: ClickFiles) -> None:
    for _ in range(2):
        writer.click("s", "a", "1")
        drain(exporter())
    assert items(files) == ["a"]
    assert writer.redis.xlen(STREAM) == 0


def test_what_was_written_but_not_removed_from_redis_is_not_written_twice(
    writer: Writer, exporter: Make, files: ClickFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for item in "abc":
        writer.click("s", item)
    with monkeypatch.context() as patch:
        patch.setattr(ClickQueue, "commit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            drain(exporter())
    writer.click("s", "d")
    assert drain(exporter()) == {"files": 1, "clicks": 1, "already_written": 3}
    assert items(files) == list("abcd")


def test_a_forgotten_session_is_in_no_file_and_may_begin_again(
    writer: Writer, exporter: Make, files: ClickFiles
) -> None:
    for session, item in ["sa", "tb", "sc"]:
        writer.click(session, item, "1" if item == "a" else "")
    drain(exporter())
    writer.click("s", "d")
    writer.forget("s")
    writer.click("s", "e", "1")  # the event id was forgotten with the rest
    assert drain(exporter()) == {"files": 1, "clicks": 1, "forgotten_sessions": 1, "forgotten_clicks": 3}
    assert items(files) == ["b", "e"]


def test_the_last_of_several_forgets_counts(writer: Writer, exporter: Make, files: ClickFiles) -> None:
    for item in "ab":
        writer.click("s", item)
        writer.forget("s")
    writer.click("s", "c")
    drain(exporter())
    assert items(files) == ["c"]


def test_a_forget_alone_is_no_file(writer: Writer, exporter: Make, files: ClickFiles) -> None:
    writer.forget("s")
    assert drain(exporter()) == {"forgotten_sessions": 1}
    assert items(files) == []
    assert writer.redis.xlen(STREAM) == 0


def test_loss_is_in_the_counts_and_in_the_file(
    writer: Writer, exporter: Make, files: ClickFiles, caplog: pytest.LogCaptureFixture
) -> None:
    for item in "abcde":
        writer.click("s", item)
    writer.redis.xtrim(STREAM, maxlen=2, approximate=False)
    assert drain(exporter()) == {"files": 1, "clicks": 2, "lost": 3}
    [path] = files.folder.glob("*.parquet")
    assert json.loads(pq.read_schema(path).metadata[METADATA_KEY])["lost"] == 3
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.fields["lost"] == 3  # type: ignore[attr-defined]
    writer.click("s", "f")
    assert drain(exporter()) == {"files": 1, "clicks": 1}  # counted once


def test_without_repeats_keeps_the_first() -> None:
    clicks = [Entry(StreamId(n, 0), "click", n, s, "i", e) for n, (s, e) in enumerate(["a1", "b1", "a1", "a2"])]
    assert [click.id.ms for click in without_repeats(clicks, {("b", "1")})] == [0, 3]


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_draining_says_what_failed(own_server: RedisServer, files: ClickFiles) -> None:
    with closing(ClickQueue(own_server.url, directory="d", place="p")) as queue:
        queue.open()
        own_server.stop()
        with pytest.raises(StoreUnavailable, match=r"click stream .* failed: .*Nothing is lost: run this again"):
            Exporter(queue, files, entries=10, seconds=0).drain(lambda: False)


def test_following_lives_through_a_redis_that_is_emptied(writer: Writer, exporter: Make, files: ClickFiles) -> None:
    following = exporter()
    rounds: list[int] = []

    def stopping() -> bool:
        """Asked about twice a round."""
        rounds.append(1)
        if len(rounds) == 4:
            writer.redis.flushall()
            writer.click("s", "b")
        return "b" in items(files)

    writer.click("s", "a")
    following.follow(stopping)
    assert items(files) == ["a", "b"]
    assert following.result()["lost"] == 0


def test_following_lives_through_a_full_disk(
    writer: Writer,
    exporter: Make,
    files: ClickFiles,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures: list[int] = []
    write = ClickFiles.write

    def fail_twice(*arguments: object) -> object:
        failures.append(1)
        if len(failures) < 3:
            raise OSError(28, "No space left on device")
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ClickFiles, "write", fail_twice)
    writer.click("s", "a")
    following = exporter()
    following.follow(lambda: writer.redis.xlen(STREAM) == 0)
    assert items(files) == ["a"]
    causes = [record.fields["cause"] for record in caplog.records if record.levelname == "WARNING"]  # type: ignore[attr-defined]
    assert causes == ["[Errno 28] No space left on device"] * 2
