import subprocess
import sys

from srgnn import compiled

COMPILE_TWO = "from srgnn.loops import worse; worse(1.0, 2, 3.0, 4); worse(1, 2, 3, 4)"


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
