import json
import subprocess
import sys

import pytest

FRESH = """
import json, sys
from srgnn import artifact, loops
from srgnn.engine import Engine
recommender = artifact.load(sys.argv[1]).recommender
ids = recommender.vocabulary.ids
recommender.recommend([[ids[3], ids[7], ids[3]], [ids[5]]], k=5, exclude=[{ids[2]}, set()])
Engine.of(recommender.scorer).top_k([recommender.sequence([ids[3]])], 5)
every = [each for each in vars(loops).items() if hasattr(each[1], "stats")]
found = [[name for name, loop in every if getattr(loop.stats, kind)] for kind in ("cache_hits", "cache_misses")]
print(json.dumps(found))
"""


ALL = """
import json
from srgnn import loops, precompile
precompile.main()
every = [each for each in vars(loops).items() if hasattr(each[1], "stats")]
print(json.dumps([len(every), [name for name, loop in every if not loop.signatures]]))
"""


@pytest.mark.timeout(300)
def test_a_service_compiles_nothing_that_was_compiled_ahead(tmp_path, blended_artifact, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "loops"))
    ahead = subprocess.run([sys.executable, "-c", ALL], check=True, capture_output=True, text=True)
    loops, left_out = json.loads(ahead.stdout)
    assert loops >= 20
    assert left_out == []
    found = subprocess.run([sys.executable, "-c", FRESH, blended_artifact], check=True, capture_output=True, text=True)
    hits, misses = json.loads(found.stdout)
    assert {"encode", "bonuses", "best_of_block", "attend"} <= set(hits)
    assert misses == []
