"""``srgnn export-clicks`` as a process that is killed: at every line it runs, and at any time under load.

What must hold: each click that Redis took is in exactly one row of one file, whatever happened on the way.
"""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from redis import Redis
from redis.exceptions import RedisError

from service.clicklog.stream import STREAM
from tests.click_stream import Writer
from tests.redis_server import RedisServer

SEED = 20261124


def command(url: str, folder: Path, *more: str) -> list[str]:
    program = "from srgnn.cli import main; main()"
    return [sys.executable, "-c", program, "export-clicks", "--redis-url", url, "--output", str(folder), *more]


def export_once(url: str, folder: Path) -> dict[str, int]:
    done = subprocess.run(command(url, folder, "--once"), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def exporting(url: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A running exporter of small, frequent files; its log is in ``export.log`` beside them."""
    small = ("--batch-rows", "50", "--flush-seconds", "0")
    folder.mkdir(exist_ok=True)
    with (
        (folder / "export.log").open("a") as log,  # a pipe that nobody reads would stop it
        subprocess.Popen(command(url, folder, *small), stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def rows(folder: Path) -> list[dict[str, str]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def ids(folder: Path) -> Counter[str]:
    return Counter(row["stream_id"] for row in rows(folder))


def events(folder: Path) -> Counter[str]:
    return Counter(row["event_id"] for row in rows(folder))


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def all_delivered(redis: Redis) -> bool:
    """Whether an exporter has the last click. What is pending says less: one that was killed may have left some."""
    [group] = redis.xinfo_groups(STREAM)
    return bool(group["last-delivered-id"] == redis.xinfo_stream(STREAM)["last-generated-id"])


class Shop(threading.Thread):
    """Clicks without a pause, in sessions of five, to the end of the block; one that is not answered is sent again."""

    def __init__(self, url: str) -> None:
        super().__init__(name="shop")
        self._url = url
        self._ending = threading.Event()
        self.taken: list[str] = []
        """Ids of the clicks that Redis answered; number n has event id ``e<n>``."""

    def __enter__(self) -> "Shop":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()

    def run(self) -> None:
        with closing(Writer(self._url)) as writer:
            while not self._ending.wait(0.001):
                number = len(self.taken)
                with suppress(RedisError):
                    self.taken.append(writer.click(f"s{number // 5}", f"i{number}", f"e{number}"))


def test_killed_at_any_time_under_load_nothing_is_lost_or_doubled(redis_url: str, tmp_path: Path) -> None:
    moments = random.Random(SEED)
    with Shop(redis_url) as shop:
        for _ in range(8):
            before = len(list(tmp_path.glob("*.parquet")))
            with exporting(redis_url, tmp_path) as process:
                until(lambda before=before: len(list(tmp_path.glob("*.parquet"))) > before)
                time.sleep(moments.uniform(0, 0.15))
                process.kill()
    assert export_once(redis_url, tmp_path)["lost"] == 0
    assert ids(tmp_path) == Counter(shop.taken)
    assert not list(tmp_path.glob(".*.partial"))
    with closing(Writer(redis_url)) as writer:
        assert writer.redis.xlen(STREAM) == 0


def test_redis_killed_and_restarted_under_load_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """A click whose answer was lost with Redis is sent again, stored twice and exported once, by its event id."""
    (tmp_path / "redis").mkdir()
    folder = tmp_path / "clicks"
    with RedisServer(tmp_path / "redis") as server, exporting(server.url, folder) as process:
        with Shop(server.url) as shop:
            until(lambda: bool(ids(folder)))  # it is under way: at its start a dead Redis ends it
            for _ in range(4):
                before = len(shop.taken)
                until(lambda before=before: len(shop.taken) > before + 100)
                server.stop()
                server.start()
            until(lambda: len(shop.taken) > before + 100)
        wanted = {f"e{number}" for number in range(len(shop.taken))}
        until(lambda: wanted <= set(events(folder)))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        log = (folder / "export.log").read_text()
        assert process.returncode == 0, log
        assert "export failed, trying again" in log
        assert json.loads(output)["lost"] == 0
        assert export_once(server.url, folder)["lost"] == 0
        found = events(folder)
        assert set(found.values()) == {1}
        assert set(found) - wanted <= {
            f"e{len(shop.taken)}"
        }  # the last, if the end of the block came before its answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_the_file_under_way(redis_url: str, tmp_path: Path, number: signal.Signals) -> None:
    with closing(Writer(redis_url)) as writer, exporting(redis_url, tmp_path) as process:
        writer.click("s", "a")
        until(lambda: bool(rows(tmp_path)))
        process.kill()
    waiting = command(redis_url, tmp_path, "--flush-seconds", "3600")
    with closing(Writer(redis_url)) as writer, subprocess.Popen(waiting, stdout=subprocess.PIPE, text=True) as process:
        writer.click("s", "b")
        until(lambda: all_delivered(writer.redis))
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(output.splitlines()[-1])["clicks"] == 1
    assert [row["item_id"] for row in rows(tmp_path)] == ["a", "b"]


def test_the_oldest_clicks_of_a_bounded_stream_go_and_are_counted(redis_url: str, tmp_path: Path) -> None:
    with closing(Writer(redis_url, most=500)) as writer:
        taken = [writer.click("s", str(n)) for n in range(2000)]
        kept = writer.redis.xlen(STREAM)
    assert kept < 2000
    found = export_once(redis_url, tmp_path)
    assert (found["clicks"], found["lost"]) == (kept, 2000 - kept)
    assert list(ids(tmp_path)) == taken[-kept:]


# Killed at every line. One process imports everything and forks an exporter for each line; the exporter kills itself
# as it comes to that line of service/clicklog or srgnn/atomic.py for the first time, or for the second.

FORKING = """
import io, os, signal, sys
from collections import Counter
from contextlib import closing
from pathlib import Path
import pyarrow.parquet
from service.clicklog import export, files, queue
import srgnn.atomic

url, folder = sys.argv[1], Path(sys.argv[2])
traced = {module.__file__ for module in (export, files, queue, srgnn.atomic)}

# What pyarrow only loads on first use would take each child half a second. It starts no threads that a fork would miss.
pyarrow.parquet.write_table(files.SCHEMA.empty_table(), io.BytesIO())
files._table([queue.Entry(queue.StreamId(1, 0), "click", 1, "s", "i")])

def export_once(last_line):
    lines, times = 0, Counter()
    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename not in traced:
            return None
        if event == "line":
            place = (frame.f_code.co_filename, frame.f_lineno)
            times[place] += 1
            lines += times[place] <= 2
            if lines == last_line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    if last_line:
        sys.settrace(trace)
    with files.ClickFiles(folder) as opened:
        with closing(queue.ClickQueue(url, directory=opened.identity(), place="here")) as stream:
            stream.open()
            export.Exporter(stream, opened, entries=5, seconds=0).drain(lambda: False)

for request in sys.stdin:
    child = os.fork()
    if not child:
        export_once(int(request))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@contextmanager
def exporter_that_dies_at(url: str, folder: Path) -> Iterator[Callable[[int], bool]]:
    """Call with the number of a line, 0 for none; whether the exporter came to its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING, url, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout

    def export(line: int) -> bool:
        print(line, file=process.stdin, flush=True)
        code = int(process.stdout.readline())  # type: ignore[union-attr]
        assert code in (0, -signal.SIGKILL)
        return code == 0

    try:
        yield export
    finally:
        process.communicate(timeout=60)


def test_killed_at_every_line_nothing_is_lost_or_doubled(redis_url: str, tmp_path: Path) -> None:
    """Two batches with all that can happen: a repeated event, and a session that is forgotten and begins again."""
    with closing(Writer(redis_url)) as writer, exporter_that_dies_at(redis_url, tmp_path) as export:
        lines, whole = 0, False
        while not whole:
            lines += 1
            writer.redis.flushall()
            for path in (*tmp_path.glob("*.parquet"), tmp_path / ".exporter"):
                path.unlink(missing_ok=True)
            wanted = [writer.click("s", "a", "1")]
            gone = [writer.click("s", "a", "1"), writer.click("t", "b"), writer.click("t", "c")]
            wanted.append(writer.click("s", "d"))
            gone.append(writer.click("t", "e", "2"))
            writer.forget("t")
            wanted.append(writer.click("t", "f", "2"))
            whole = export(lines)
            found = ids(tmp_path)
            assert set(found) <= {*wanted, *gone}, lines
            assert not found or max(found.values()) == 1, lines
            assert export(0), lines
            assert ids(tmp_path) == Counter(wanted), lines
            assert writer.redis.xlen(STREAM) == 0, lines
    assert lines > 200
