import json
import subprocess
import sys

import pytest

EVERY = """
files = [importlib.import_module(f"srgnn.loops.{each.name}") for each in pkgutil.iter_modules(loops.__path__)]
every = {name: loop for file in files for name, loop in vars(file).items() if hasattr(loop, "stats")}.items()
"""

FRESH = """
import importlib, json, pkgutil, sys
from srgnn import artifact, loops
from srgnn.engine import Engine
recommender = artifact.load(sys.argv[1]).recommender
ids = recommender.vocabulary.ids
recommender.recommend([[ids[3], ids[7], ids[3]], [ids[5]]], k=5, exclude=[{ids[2]}, set()])
Engine.of(recommender.scorer).top_k([recommender.sequence([ids[3]])], 5)
EVERY
found = [[name for name, loop in every if getattr(loop.stats, kind)] for kind in ("cache_hits", "cache_misses")]
print(json.dumps(found))
"""


ALL = """
import importlib, json, pkgutil
from srgnn import loops, precompile
precompile.main()
EVERY
print(json.dumps([len(every), [name for name, loop in every if not loop.signatures]]))
"""


@pytest.mark.timeout(300)
def test_a_service_compiles_nothing_that_was_compiled_ahead(tmp_path, blended_artifact, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "loops"))
    ahead = subprocess.run(
        [sys.executable, "-c", ALL.replace("EVERY", EVERY)], check=True, capture_output=True, text=True
    )
    loops, left_out = json.loads(ahead.stdout)
    assert loops >= 20
    assert left_out == []
    found = subprocess.run(
        [sys.executable, "-c", FRESH.replace("EVERY", EVERY), blended_artifact],
        check=True,
        capture_output=True,
        text=True,
    )
    hits, misses = json.loads(found.stdout)
    assert {"encode", "bonuses", "best_of_block", "attend"} <= set(hits)
    assert misses == []
