"""tests/integration/test_workers.py runs whole ones."""

import multiprocessing
import os
import socket
import subprocess
import sys
from ctypes import c_long, c_ulong
from pathlib import Path

import pytest

from service import worker
from service.settings import load_settings
from service.sharing import Share
from service.versions import Versions
from service.worker import Link, stop_seconds
from srgnn.errors import StoreMisconfigured
from tests.artifacts import damage, folder_with_two
from tests.redis_server import RedisServer


def test_neither_it_nor_its_parent_needs_torch() -> None:
    code = "import sys, service.worker, service.workers\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


def test_it_may_take_what_the_settings_allow_and_some_overtime() -> None:
    assert stop_seconds(load_settings(drain_seconds=3, shutdown_seconds=10)) == 3 + 10 + worker.OVERTIME_SECONDS


def test_what_keeps_it_from_loading_is_told_to_the_parent(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_end_with_parent", lambda seconds: None)
    monkeypatch.setattr(worker, "configure_logging", lambda level: None)
    tiny, _ = folder_with_two(tiny_artifact, tmp_path / "artifacts")
    damage(tiny)
    parent, pipe = multiprocessing.Pipe()
    with socket.socket() as listener:
        worker.work(
            load_settings(), listener, Link(pipe, c_ulong(), Share((c_long * 2)(), 0), Versions(tiny.parent)), False
        )
    assert "is damaged" in str(parent.recv())


@pytest.mark.parametrize("replaces_another", [False, True])
def test_a_store_that_refuses_it_is_a_reason_not_to_start_but_not_for_a_replacement(
    tiny_artifact: Path, replaces_another: bool
) -> None:
    with RedisServer() as server:
        server.command("CONFIG", "SET", "requirepass", "secret")
        settings = load_settings(redis_url=server.url, store_timeout_ms=5000)
        link = Link(multiprocessing.Pipe()[1], c_ulong(), Share((c_long * 2)(), 0), Versions(tiny_artifact))
        if replaces_another:
            app = worker._load(settings, link, replaces_another)
            assert b"srgnn_worker_replacements_total 1.0" in app.state.metrics.render()
        else:
            with pytest.raises(StoreMisconfigured):
                worker._load(settings, link, replaces_another)
