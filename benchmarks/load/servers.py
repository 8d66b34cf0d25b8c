"""The processes under load: a Redis and a service of our own, and what they use of the machine."""

import ipaddress
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from srgnn.errors import InputError
from tests.redis_server import free_port

READY_SECONDS = 180
"""Longest a service may take to load its model; baselines are fitted at the start."""
STOP_SECONDS = 15


def require_loopback(url: str, option: str) -> None:
    """Raise InputError unless ``url`` points to this machine: load on anything else is an attack."""
    host = urlsplit(url).hostname
    if url.startswith("unix:") or host == "localhost" or _is_loopback(host):
        return
    raise InputError(f"{option} {url!r} is not on this machine: expected localhost, 127.0.0.1 or [::1]")


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class Service:
    """A service in a process of its own; ``url`` answers once :meth:`wait_ready` returned."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
        self.process, self.url, self._log = process, url, log
        self._started = time.monotonic()

    def wait_ready(self) -> float:
        """Seconds from start to ready. Raises InputError with the end of the log where it does not come up."""
        deadline = self._started + READY_SECONDS
        while not is_ready(self.url):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise InputError(f"the service did not start; the end of its log:\n{self.last_lines()}")
            time.sleep(0.05)
        return time.monotonic() - self._started

    def last_lines(self, number: int = 15) -> str:
        """The end of what it wrote to stderr."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-number:])


def service_command(model: str, artifact: Path | None, corpus: Path, workers: int) -> list[str]:
    """``srgnn serve`` for the artifact, the same service around a baseline for any other ``model``."""
    if model == "artifact":
        command = [sys.executable, "-m", "srgnn", "serve", "--artifact", str(artifact)]
    else:
        command = [sys.executable, "-m", "benchmarks.serve_peer", "--baseline", model, "--corpus", str(corpus)]
    return [*command, "--workers", str(workers)] if workers > 1 else command


@contextmanager
def running_service(command: Sequence[str], redis_url: str) -> Iterator[Service]:
    """Start it on a free port; whatever it started is gone afterwards."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="srgnn-load-") as folder:
        log = Path(folder) / "service.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, "--redis-url", redis_url, "--host", "127.0.0.1", "--port", str(port)],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for us: we stop the service before its Redis
            )
        try:
            yield Service(process, f"http://127.0.0.1:{port}", log)
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers that outlived it, or itself
    process.wait()


def is_ready(url: str) -> bool:
    """Whether the service says that model and session store answer."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # refused, or an HTTP error
        return False


def batch_totals(url: str, key: str = "") -> tuple[float, float]:
    """Histories and forward passes so far, from /metrics; zeros where it does not say."""
    text = _metrics(url, key)
    return _sample(text, "srgnn_batch_size_sum"), _sample(text, "srgnn_batch_size_count")


def workers(url: str) -> int:
    """How many there are that have loaded the model, from /metrics; 0 where it does not say."""
    return int(_sample(_metrics(url), "srgnn_workers"))


def _metrics(url: str, key: str = "") -> str:
    try:
        request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"} if key else {})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
    except (OSError, urllib.error.URLError):
        return ""


def _sample(text: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


class Usage:
    """Processor time and memory of named processes with the children they have when this is made."""

    def __init__(self, **processes: int) -> None:
        self._families = {name: _family(psutil.Process(pid)) for name, pid in processes.items()}

    def cpu_seconds(self) -> dict[str, float]:
        """Since each process began; cheap enough to be called under load."""
        return {name: sum(map(_cpu_seconds, family)) for name, family in self._families.items()}

    def memory_mb(self) -> dict[str, float]:
        """Proportional set size where the system tells it: pages shared between workers count once."""
        return {name: round(sum(map(_memory_mb, family)), 1) for name, family in self._families.items()}


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _memory_mb(process: psutil.Process) -> float:
    try:
        memory = process.memory_full_info()
        return float(getattr(memory, "pss", memory.rss)) / 1e6
    except psutil.Error:
        return 0.0
