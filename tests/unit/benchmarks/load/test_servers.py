import os
import sys
from pathlib import Path

import pytest

from benchmarks.load import servers
from srgnn.errors import InputError


@pytest.mark.parametrize(
    "url", ["http://localhost:8000", "http://127.1.2.3:80", "http://[::1]:8000", "redis://127.0.0.1/0", "unix:///run/r"]
)
def test_this_machine_may_be_loaded(url):
    servers.require_loopback(url, "--url")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://10.0.0.1:8000",
        "http://0.0.0.0:80",
        "localhost:8000",
        "",
        "http://localhost.evil.io",
    ],
)
def test_any_other_machine_is_refused(url):
    with pytest.raises(InputError, match="not on this machine"):
        servers.require_loopback(url, "--url")


def test_workers_are_asked_for_only_where_there_are_several():
    one = servers.service_command("artifact", Path("a"), Path("c"), 1)
    assert one == [sys.executable, "-m", "srgnn", "serve", "--artifact", "a"]
    assert servers.service_command("artifact", Path("a"), Path("c"), 3) == [*one, "--workers", "3"]


def test_a_baseline_is_served_by_the_peer():
    command = servers.service_command("markov", None, Path("c"), 1)
    assert command == [sys.executable, "-m", "benchmarks.serve_peer", "--baseline", "markov", "--corpus", "c"]


def test_a_service_that_does_not_start_shows_the_end_of_its_log():
    command = [sys.executable, "-c", "import sys; sys.exit('error: no such artifact')"]
    with (
        servers.running_service(command, "redis://127.0.0.1:1/0") as service,
        pytest.raises(InputError, match="no such artifact"),
    ):
        service.wait_ready()


def test_a_service_and_its_children_are_gone_afterwards():
    script = "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
    with servers.running_service([sys.executable, "-c", script], "redis://127.0.0.1:1/0") as service:
        pid = service.process.pid
        assert os.getpgid(pid) == pid
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_usage_counts_this_process():
    usage = servers.Usage(me=os.getpid())
    assert usage.cpu_seconds()["me"] > 0
    assert usage.memory_mb()["me"] > 10


def test_a_service_without_metrics_has_no_batches_and_no_workers():
    assert servers.batch_totals("http://127.0.0.1:1") == (0, 0)
    assert servers.workers("http://127.0.0.1:1") == 0
