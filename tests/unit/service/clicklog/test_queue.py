"""Reading the click stream from a real Redis; whole exports are in test_export.py."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from redis.exceptions import RedisError

from service.clicklog.queue import COMMIT, CONSUMER, ENTRIES_PER_COMMAND, ClickQueue, Entry, NotBound, StreamId, missing
from service.clicklog.stream import EXPORT, GROUP, STREAM
from srgnn.errors import ConfigError
from tests.click_stream import Writer
from tests.redis_server import RedisServer, free_port


def take(queue: ClickQueue, entries: int = 1000) -> list[Entry]:
    return queue.collect(entries, 0, once=True, stopping=lambda: False)


def items(entries: list[Entry]) -> list[str]:
    return [entry.item for entry in entries]


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def reopened(url: str, directory: str = "d1") -> ClickQueue:
    queue = ClickQueue(url, directory=directory, place=f"there:/{directory}")
    queue.open()
    return queue


def test_ids_compare_by_time_and_read_like_redis_writes_them() -> None:
    texts = ["9-0", "10-2", "10-10", "1795543217128-0"]
    assert sorted(map(StreamId.parse, reversed(texts))) == list(map(StreamId.parse, texts))
    assert [str(StreamId.parse(text)) for text in texts] == texts


def test_what_was_committed_is_gone_and_the_rest_comes_again(writer: Writer, queue: ClickQueue, redis_url: str) -> None:
    for item in "abcd":
        writer.click("s", item)
    first = take(queue, 2)
    assert items(first) == ["a", "b"]
    queue.commit(first, set())
    assert items(take(queue, 1)) == ["c"]  # and is not committed
    with closing(reopened(redis_url)) as later:
        assert items(take(later)) == ["c", "d"]
        later.commit(take(later), set())
    assert writer.redis.xlen(STREAM) == 2


def test_a_batch_of_several_commands_is_whole_and_in_order(writer: Writer, queue: ClickQueue, redis_url: str) -> None:
    wanted = [str(n) for n in range(2 * ENTRIES_PER_COMMAND + 5)]
    for item in wanted:
        writer.click("s", item)
    take(queue, ENTRIES_PER_COMMAND + 3)  # pending now
    with closing(reopened(redis_url)) as later:
        found = take(later, 10_000)
        assert items(found) == wanted
        later.commit(found, set())
        assert take(later) == []
    assert writer.redis.xlen(STREAM) == 0
    assert writer.redis.xpending(STREAM, GROUP)["pending"] == 0


def test_clicks_before_the_first_exporter_are_not_missed(writer: Writer, redis_url: str) -> None:
    writer.click("s", "a")
    with closing(reopened(redis_url)) as queue:
        assert items(take(queue)) == ["a"]


def test_what_somebody_read_by_another_name_is_exported(writer: Writer, queue: ClickQueue, redis_url: str) -> None:
    for item in "abc":
        writer.click("s", item)
    writer.redis.xreadgroup(GROUP, "somebody", {STREAM: ">"}, count=2)
    with closing(reopened(redis_url)) as later:
        assert items(take(later)) == ["a", "b", "c"]
    assert [consumer["name"] for consumer in writer.redis.xpending(STREAM, GROUP)["consumers"]] == [CONSUMER]


def test_only_what_was_exported_is_removed(writer: Writer, queue: ClickQueue) -> None:
    writer.click("s", "a")
    writer.redis.xreadgroup(GROUP, "somebody", {STREAM: ">"})
    writer.click("s", "b")
    queue.commit(take(queue), set())
    assert [fields["item"] for _, fields in writer.redis.xrange(STREAM)] == ["a"]


def test_a_second_directory_is_refused_with_the_place_of_the_first(queue: ClickQueue, redis_url: str) -> None:
    with pytest.raises(ConfigError, match=r"the clicks of this Redis go to here:/clicks.*--take-over"):
        reopened(redis_url, "d2")


def test_after_a_take_over_the_first_directory_is_refused_also_while_it_runs(
    writer: Writer, queue: ClickQueue, redis_url: str
) -> None:
    writer.click("s", "a")
    under_way = take(queue)
    with closing(ClickQueue(redis_url, directory="d2", place="there:/d2")) as other:
        other.open(take_over=True)
        with pytest.raises(NotBound):
            queue.commit(under_way, set())
        assert items(take(other)) == ["a"]
    with pytest.raises(ConfigError, match="go to there:/d2"):
        queue.open()


def test_an_emptied_redis_is_bound_again(writer: Writer, queue: ClickQueue) -> None:
    writer.click("s", "a")
    queue.commit(take(queue), set())
    assert queue.number == 1
    writer.redis.flushall()
    writer.click("s", "b")
    with pytest.raises(RedisError, match="NOGROUP"):
        take(queue)
    queue.open()
    assert queue.number == 0
    queue.commit(take(queue), set())
    assert (queue.number, queue.lost) == (1, 0)


def test_what_was_read_before_redis_went_is_not_thrown_away(own_server: RedisServer) -> None:
    with closing(Writer(own_server.url)) as writer:
        for n in range(ENTRIES_PER_COMMAND):
            writer.click("s", str(n))
    with closing(reopened(own_server.url)) as queue:
        asked: list[int] = []

        def stopping() -> bool:
            """Asked before every command: for what is pending, for the first thousand, and then Redis goes."""
            asked.append(1)
            if len(asked) == 3:
                own_server.stop()
            return False

        found = queue.collect(5 * ENTRIES_PER_COMMAND, 0, once=True, stopping=stopping)
        assert len(found) == ENTRIES_PER_COMMAND
        with pytest.raises(RedisError):
            queue.commit(found, set())


def test_entries_of_no_known_form_hold_up_nothing(writer: Writer, queue: ClickQueue) -> None:
    for fields in ({"x": "y"}, {"n": "one", "session": "s", "item": "a"}, {"n": "1", "session": "s"}, {"n": b"\xff"}):
        writer.redis.xadd(STREAM, fields)
    writer.click("s", "a")
    found = take(queue)
    assert [entry.kind for entry in found] == ["malformed"] * 4 + ["click"]
    queue.commit(found, set())
    assert writer.redis.xlen(STREAM) == 0


def test_numbers_left_out_are_counted_as_lost(writer: Writer, queue: ClickQueue) -> None:
    for item in "abcdefg":
        writer.click("s", item)
    writer.redis.xtrim(STREAM, maxlen=4, approximate=False)
    queue.commit(take(queue, 2), set())
    assert queue.lost == 3
    writer.redis.xtrim(STREAM, maxlen=1, approximate=False)
    queue.commit(take(queue), set())
    assert (queue.lost, queue.number) == (4, 7)


def test_what_is_trimmed_while_it_is_pending_is_lost_unless_it_was_written(
    writer: Writer, queue: ClickQueue, redis_url: str
) -> None:
    for item in "abc":
        writer.click("s", item)
    written = {entry.id for entry in take(queue, 2)}
    writer.redis.xtrim(STREAM, maxlen=1, approximate=False)
    for exported, lost in ((set(), 2), (written, 0)):
        with closing(reopened(redis_url)) as later:
            found = take(later)
            assert [entry.kind for entry in found] == ["gone", "gone", "click"]
            assert missing(found, later.number, exported) == (lost, 3)
    with closing(reopened(redis_url)) as later:
        later.commit(take(later), written)
        assert later.lost == 0
        assert take(later) == []


def test_a_late_entry_is_not_counted_as_a_gap() -> None:
    def click(number: int) -> Entry:
        return Entry(StreamId(number, 0), "click", number, "s", "a")

    assert missing([click(3), click(2), click(4)], 1, set()) == (1, 4)
    assert missing([], 7, set()) == (0, 7)


def test_a_full_redis_is_emptied_also_after_a_restart(writer: Writer, queue: ClickQueue, redis_url: str) -> None:
    for n in range(10):
        writer.click("s", str(n))
    writer.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisError, match="maxmemory"):
            writer.click("s", "refused")
        with closing(reopened(redis_url)) as later:
            later.commit(take(later), set())
            assert later.number == 10
    finally:
        writer.redis.config_set("maxmemory", 0)
    assert writer.redis.xlen(STREAM) == 0


def test_the_commit_script_is_brought_along_where_redis_has_forgotten_it(writer: Writer, queue: ClickQueue) -> None:
    writer.click("s", "a")
    writer.redis.script_flush()
    queue.commit(take(queue), set())
    assert writer.redis.hget(EXPORT, "number") == "1"
    assert "XTRIM" not in COMMIT


def test_messages_hold_no_password() -> None:
    url = f"redis://user:secret@127.0.0.1:{free_port()}/0"
    with closing(ClickQueue(url, directory="d", place="p")) as queue:
        assert "127.0.0.1" in queue.name
        assert "secret" not in queue.name
        with pytest.raises(RedisError) as error:
            queue.open()
        assert "secret" not in str(error.value)
