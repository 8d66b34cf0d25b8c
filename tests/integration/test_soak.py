"""`make soak`, its first seconds: workers, Redis and the way between them fail, and no promise is broken."""

import json
from pathlib import Path

from click.testing import CliRunner

from benchmarks.soak import main


def test_the_whole_command_breaks_things_and_ends_in_one_json_line(tiny_artifact: Path) -> None:
    faults = ["black hole", "Redis killed", "worker killed"]
    chosen = [word for fault in faults for word in ("--fault", fault)]
    brief = ["--artifact", str(tiny_artifact), "--seconds", "0", "--fault-seconds", "0.5", "--rate", "40"]
    environment = {"SRGNN_DEADLINE_MS": "20000", "SRGNN_STORE_TIMEOUT_MS": "200"}
    result = CliRunner().invoke(main, [*brief, *chosen], env=environment, catch_exceptions=False)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["broken"] == []
    assert result.exit_code == 0
    rows = {row["fault"]: row for row in found["results"]}
    assert list(rows) == faults
    assert rows["black hole"]["degraded"] > 0.5
    assert rows["black hole"]["not_answered"] == rows["Redis killed"]["not_answered"] == 0
    assert len(found["memory_mb"]) == 3
    assert min(found["memory_mb"]) > 100
    assert "| fault | clicks |" in result.stdout
