import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from srgnn import processes
from srgnn.artifact import load
from srgnn.batch import recommend_file
from srgnn.errors import DataError, SRGNNError
from srgnn.processes import answer_in_order
from srgnn.recommender import Recommender

CHUNKS = 40


def name_and_process(recommender: Recommender, chunk: int) -> tuple[int, str, int]:
    return chunk, recommender.version, os.getpid()


def die_at_seven(recommender: Recommender, chunk: int) -> int:
    if chunk == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return chunk


def fail_at_seven(recommender: Recommender, chunk: int) -> int:
    if chunk == 7:
        raise DataError("line 7 is no session")
    return chunk


@pytest.fixture(params=["copies", "loaded anew"])
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How workers come to be; whether this process may be copied depends on the tests before."""
    monkeypatch.setattr(processes, "_may_be_copied", lambda: request.param == "copies")
    return request.param


def test_a_process_with_threads_is_not_copied() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert not processes._may_be_copied()
    stop.set()
    thread.join()


def test_a_process_with_one_thread_is_copied() -> None:
    code = "from srgnn.processes import _may_be_copied as may; from srgnn.threads import limit_threads as limit; "
    code += "limit(2); assert not may(), 'torch has threads'; limit(1); assert may()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("start")
def test_every_chunk_is_answered_in_order_by_several_processes(tiny_artifact: Path) -> None:
    loaded = load(tiny_artifact)
    taken: list[int] = []

    def chunks() -> Iterator[int]:
        for chunk in range(CHUNKS):
            taken.append(chunk)
            yield chunk

    answers = []
    for answer in answer_in_order(name_and_process, chunks(), loaded.recommender, loaded.path, workers=2):
        answers.append(answer)
        assert len(taken) - len(answers) <= 2 * processes.AHEAD, "no more is read than is soon needed"
    assert [chunk for chunk, _, _ in answers] == list(range(CHUNKS))
    assert {version for _, version, _ in answers} == {loaded.name}
    assert os.getpid() not in {process for _, _, process in answers}


def test_one_worker_is_this_process(tiny_recommender: Recommender) -> None:
    answers = list(answer_in_order(name_and_process, iter(range(3)), tiny_recommender, None, workers=1))
    assert answers == [(chunk, "tiny-1", os.getpid()) for chunk in range(3)]


@pytest.mark.usefixtures("start")
def test_an_error_in_a_worker_is_the_callers(tiny_artifact: Path) -> None:
    loaded = load(tiny_artifact)
    with pytest.raises(DataError, match="line 7 is no session"):
        list(answer_in_order(fail_at_seven, iter(range(CHUNKS)), loaded.recommender, loaded.path, workers=2))


@pytest.mark.usefixtures("start")
def test_a_worker_that_is_killed_is_told(tiny_artifact: Path) -> None:
    loaded = load(tiny_artifact)
    with pytest.raises(SRGNNError, match=r"worker processes died.*fewer --workers"):
        list(answer_in_order(die_at_seven, iter(range(CHUNKS)), loaded.recommender, loaded.path, workers=2))


@pytest.mark.usefixtures("start")
def test_a_file_is_answered_alike_by_one_and_by_two(tiny_artifact: Path, tmp_path: Path) -> None:
    loaded = load(tiny_artifact)
    ids = [item for item in loaded.recommender.vocabulary.ids if " " not in item]
    lines = [" ".join(ids[i % 30 : i % 30 + 1 + i % 5]) for i in range(1500)]  # three chunks
    (tmp_path / "in.txt").write_text("\n".join([*lines, "unheard-of"]), encoding="utf-8")
    results = []
    for workers in (1, 2):
        output = tmp_path / f"{workers}.parquet"
        result = recommend_file(
            loaded.recommender, tmp_path / "in.txt", output, artifact=loaded.path, workers=workers, shown=False
        )
        results.append({**result.to_json(), "seconds": 0, "histories_per_second": 0, "output": ""})
    assert json.dumps(results[0]) == json.dumps(results[1])
    assert results[0]["histories"] == 1501
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


KILLED_WHILE_READING = """
import sys, time
from pathlib import Path
from srgnn.artifact import load
from srgnn.processes import answer_in_order
from srgnn.threads import limit_threads
from tests.unit.srgnn.test_processes import name_and_process

def chunks():
    yield from range(6)
    time.sleep(600)

limit_threads(1)
loaded = load(Path(sys.argv[1]))
for answer in answer_in_order(name_and_process, chunks(), loaded.recommender, loaded.path, workers=2):
    print("answered", flush=True)
"""


def test_copies_end_with_the_process_that_made_them_however_it_ends(tiny_artifact: Path) -> None:
    command = [sys.executable, "-c", KILLED_WHILE_READING, str(tiny_artifact)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "answered\n"
        process.kill()
        process.communicate(timeout=30)  # until nobody holds the other end, and workers hold it too
