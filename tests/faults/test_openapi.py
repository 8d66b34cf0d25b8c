"""Whatever the OpenAPI document allows or forbids is answered as it says, over real HTTP, never with a failure."""

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import load_settings
from srgnn.recommender import Recommender

NOT_MEANT = "use_after_free,ensure_resource_availability"
"""A session that was forgotten, or never began, is an empty one; these demand a 404."""
PARTS = {
    "all but swaps": ("--exclude-path", "/admin/model"),
    # Which artifacts there are, no document can say: most names are refused.
    "swaps": ("--include-path", "/admin/model", "--exclude-checks", f"{NOT_MEANT},positive_data_acceptance"),
}


@pytest.mark.parametrize("part", PARTS)
def test_schemathesis_finds_nothing(
    part: str,
    running: Callable[[FastAPI], AbstractContextManager[str]],
    tiny_recommender: Recommender,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """Examples, bounds, random requests, legal and not, and sequences of calls; the same in every run."""
    options = load_settings(
        redis_url=redis_url,
        store_timeout_ms=10_000,
        deadline_ms=20_000,
        bulk_deadline_ms=20_000,
        max_k=len(tiny_recommender.vocabulary),  # a document cannot say that there are only so many items
    )
    command = [sys.executable, "-m", "schemathesis.cli", "run"]
    rules = ["--checks", "all", "--exclude-checks", NOT_MEANT, "--max-examples", "50"]
    stable = ["--generation-deterministic", "--suppress-health-check", "all", "--no-color"]
    with running(create_app(options, recommender=tiny_recommender)) as url:
        result = subprocess.run(
            [*command, f"{url}/openapi.json", *rules, *stable, *PARTS[part]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r" [1-9]\d* selected / ", result.stdout), result.stdout
