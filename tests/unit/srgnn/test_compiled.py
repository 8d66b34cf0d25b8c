import os
import subprocess
import sys

from srgnn import compiled

COMPILE_TWO = "from srgnn.loops.heap import worse; worse(1.0, 2, 3.0, 4); worse(1, 2, 3, 4)"


def test_where_nothing_can_be_kept_loops_are_compiled_all_the_same(monkeypatch):
    def nowhere(function, **options):
        if options.get("cache"):
            raise RuntimeError("no locator available")  # as numba says
        return before(function, **options)

    before = compiled.njit
    monkeypatch.setattr(compiled, "njit", nowhere)
    assert compiled.compiled(lambda x: x + 1)(2) == 3


def test_what_takes_long_once_is_said_once_and_then_no_more(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    runs = [subprocess.run([sys.executable, "-c", COMPILE_TWO], check=True, capture_output=True) for _ in range(2)]
    assert runs[0].stderr.decode().count("compiling loops for this processor") == 1
    assert runs[1].stderr == b""


LOOP = """
from typing import NamedTuple
import numba
from srgnn.compiled import compiled

class {name}(NamedTuple):
    x: float

@compiled
def double(pair):
    return 2 * pair.x

print(double({name}(21.0)), sum(double.stats.cache_hits.values()))
"""


def test_loops_that_an_older_version_kept_over_a_class_that_is_gone_are_compiled_anew(tmp_path):
    module = tmp_path / "loop.py"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept"), "PYTHONPATH": str(tmp_path)}

    def run(name):
        module.write_text(LOOP.format(name=name))
        command = [sys.executable, "-c", "import loop"]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()

    assert [run("Older"), run("Older"), run("Newer"), run("Newer")] == [["42.0", hits] for hits in "0101"]


def test_what_was_kept_and_cut_off_is_compiled_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", COMPILE_TWO], check=True, capture_output=True)
        kept = list(tmp_path.rglob("*.nbi"))
        assert kept
        for index in kept:
            index.write_bytes(index.read_bytes()[:-5])


CALLED = """
from srgnn.compiled import compiled

@compiled
def {name}():
    return {value}
"""
CALLER = """
from called import seven
from srgnn.compiled import compiled

@compiled
def twice():
    return 2 * seven()

print(twice(), sum(twice.stats.cache_hits.values()))
"""


def test_a_loop_is_compiled_anew_where_another_file_beside_it_has_changed(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept"), "PYTHONPATH": str(tmp_path)}
    (tmp_path / "caller.py").write_text(CALLER)

    def run(value):
        (tmp_path / "called.py").write_text(CALLED.format(name="seven", value=value))
        command = [sys.executable, "-c", "import caller"]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()

    assert [run(7), run(7), run(8)] == [["14", "0"], ["14", "1"], ["16", "0"]]
