"""``srgnn export-clicks``."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
from redis.exceptions import RedisError

from srgnn.cli import emit
from srgnn.errors import ConfigError, StoreUnavailable

from ..telemetry import configure_logging
from .export import Exporter
from .files import ClickFiles
from .queue import ClickQueue

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@click.command()
@click.option(
    "--redis-url",
    envvar="SRGNN_REDIS_URL",
    show_envvar=True,
    required=True,
    help="The service's Redis. Give a URL that holds a password by the variable: arguments show in ps.",
)
@click.option(
    "--output",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the Parquet files; made if missing. One exporter at a time.",
)
@click.option("--once", is_flag=True, help="Export what is there and end, instead of waiting for more.")
@click.option(
    "--batch-rows", type=click.IntRange(1), default=100_000, show_default=True, help="Most clicks in one file."
)
@click.option(
    "--flush-seconds",
    type=click.FloatRange(0),
    default=300.0,
    show_default=True,
    help="Longest a click waits for others to share its file.",
)
@click.option(
    "--take-over",
    is_flag=True,
    help="Export to DIR from now on what went to another folder; stop that exporter first.",
)
def export_clicks(
    redis_url: str, output: Path, once: bool, batch_rows: int, flush_seconds: float, take_over: bool
) -> None:
    """Move the clicks that the service left in Redis to Parquet files, which `srgnn prepare` reads.

    \b
    srgnn export-clicks --redis-url redis://localhost:6379/0 --output clicks
    srgnn prepare --config default --input clicks --output corpus

    Runs until SIGTERM or Ctrl-C, which finish the file under way. It may be killed at any moment: what it had not
    finished is exported by the next one, and nothing twice. Exported clicks are removed from Redis, so each goes to one
    DIR only, and a second DIR on the same Redis is refused.

    A session that is forgotten (DELETE /sessions/{id}) is taken out of all files in DIR as well. Copies of them, and
    corpora and models made of them, are yours to look after.

    The last line on stdout is a JSON object: files, clicks, duplicates (an event id repeated within an hour), lost
    (Redis dropped them because nobody exported in time), forgotten_sessions, and what else was left out.
    """
    configure_logging("info")
    started = time.monotonic()
    with ClickFiles(output) as files, closing(_queue(redis_url, files)) as queue, _stop_signals() as stopping:
        _open(queue, take_over)
        exporter = Exporter(queue, files, entries=batch_rows, seconds=flush_seconds)
        if once:
            exporter.drain(stopping)
        else:
            exporter.follow(stopping)
    emit({**exporter.result(), "seconds": round(time.monotonic() - started, 3), "output": str(output)})


def _queue(url: str, files: ClickFiles) -> ClickQueue:
    place = f"{socket.gethostname()}:{files.folder.resolve()}"
    try:
        return ClickQueue(url, directory=files.identity(), place=place)
    except ValueError as error:
        raise ConfigError(f"--redis-url cannot be used: {error}") from error


def _open(queue: ClickQueue, take_over: bool) -> None:
    """A failure at the start is most likely a wrong URL; later ones pass."""
    try:
        queue.open(take_over=take_over)
    except RedisError as error:
        raise StoreUnavailable(f"{queue.name} failed: {error}. Check that Redis runs there") from error


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether one has come, instead of what they do otherwise."""
    received: list[int] = []
    previous = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in STOP_SIGNALS}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
