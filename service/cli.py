"""``srgnn serve`` and ``srgnn keys``."""

import asyncio
import logging
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import uvicorn
from fastapi import FastAPI

from srgnn.cli import emit
from srgnn.errors import ConfigError, StoreMisconfigured, StoreUnavailable
from srgnn.garbage import settle

from . import keys as key_file
from .connections import BoundedHttp
from .drain import DrainingServer
from .settings import PREFIX, Settings, load_settings
from .sharing import Share, SharingServer
from .telemetry import configure_logging

if TYPE_CHECKING:
    from srgnn.recommender import Recommender

logger = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that may wait to be accepted."""
SPARE_FILES = 100
"""What a process may have open beside its connections: libraries, the artifact, Redis, clients being refused."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@click.command()
@click.option("--artifact", type=click.Path(path_type=Path), help="Artifact, or the folder that holds LATEST.")
@click.option("--redis-url", help="Session store; without one, sessions live in this process.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--workers", type=int, help="Processes that answer on the port; several need --redis-url.")
def serve(
    artifact: Path | None, redis_url: str | None, host: str | None, port: int | None, workers: int | None
) -> None:
    """Answer over HTTP until SIGTERM or Ctrl-C; requests under way are finished first.

    Every other setting is an environment variable, SRGNN_...; these options override theirs.
    """
    run_service(load_settings(artifact=artifact, redis_url=redis_url, host=host, port=port, workers=workers))


@click.command()
@click.option("--file", "path", required=True, envvar=f"{PREFIX}KEYS_FILE", type=click.Path(path_type=Path))
@click.option("--name", help="Make a key for this client.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(key_file.SCOPES), help="May do this; repeatable.")
@click.option("--revoke", help="Take this client's key away.")
def keys(path: Path, name: str | None, scopes: tuple[str, ...], revoke: str | None) -> None:
    """Make, revoke or list the API keys in a FILE for SRGNN_KEYS_FILE.

    A new key is printed once and kept nowhere: the file holds its SHA-256. A running service looks at the file every
    second. Scopes: read recommends and looks, click stores clicks and deletes sessions, admin may do everything.
    """
    if name and not scopes:
        raise click.UsageError("--name needs --scope read, click or admin, or several of them")
    if bool(name) == bool(revoke) and (name or scopes):
        raise click.UsageError("give --name with --scope, or --revoke, or neither to list what there is")
    if name:
        emit({"name": name, "scopes": scopes, "key": key_file.make(path, name, scopes)})
    elif revoke:
        key_file.revoke(path, revoke)
        emit({"revoked": revoke})
    else:
        entries = key_file.parse(key_file.read(path), path)
        emit({"keys": [{"name": entry.name, "scopes": entry.scopes} for entry in entries]})


def run_service(settings: Settings, recommender: "Recommender | None" = None) -> None:
    """Serve, and say at the end what was done; ``recommender`` takes the place of the settings' artifact."""
    configure_logging(settings.log_level)
    if recommender and settings.workers > 1:
        raise ConfigError(f"{PREFIX}WORKERS is {settings.workers}: several workers can only serve an artifact, use one")
    allow_files(settings.max_connections + SPARE_FILES)
    with open_listener(settings) as listener:
        if settings.workers == 1:
            served, seconds = _serve_alone(settings, listener, recommender)
        else:
            from .workers import Supervisor

            served, seconds = Supervisor(settings, listener).run()
    emit({"served": served, "seconds": round(seconds, 3)})


def allow_files(number: int) -> None:
    """Raise the limit of open files, which workers inherit. Raises ConfigError where the system forbids that.

    Past it no connection could be taken, but no artifact be opened and Redis not be reached either.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < number:
        raise ConfigError(
            f"{PREFIX}MAX_CONNECTIONS needs {number} open files, but this process may have {most}: lower it to "
            f"{max(most - SPARE_FILES, 1)}, or raise the limit (ulimit -Hn)"
        )
    if allowed != resource.RLIM_INFINITY and allowed < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, most))


def _serve_alone(settings: Settings, listener: socket.socket, recommender: "Recommender | None") -> tuple[int, float]:
    """Serve in this process; the number of requests answered, and the seconds that took."""
    from .app import create_app  # brings torch: not for --help, nor before wrong settings are told

    with _held(signal.SIGHUP):  # it would end this process, while there is no model yet to be swapped
        app = create_app(settings, recommender=recommender)
        asyncio.run(check_store(settings))
        log_serving(settings, listener, recommender.version if recommender else str(settings.artifact))
        started = time.monotonic()
        swapper = app.state.swapper
        signals = (*STOP_SIGNALS, signal.SIGHUP)
        run_server(app, settings, listener, signals=signals, on_hangup=swapper.look_again if swapper else None)
    return app.state.metrics.served, time.monotonic() - started


@contextmanager
def _held(number: signal.Signals) -> Iterator[None]:
    """Let a signal wait until :func:`run_server` can handle it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def log_serving(settings: Settings, listener: socket.socket, artifact: str) -> None:
    """Say where, and what."""
    url = f"http://{settings.host}:{listener.getsockname()[1]}"
    logger.info("serving", extra={"fields": {"url": url, "artifact": artifact, "workers": settings.workers}})
    if settings.keys_file is None:
        logger.warning("no keys: every program on this machine may do everything")


def open_listener(settings: Settings) -> socket.socket:
    """A bound socket, taken before the model is loaded so that a wrong port is told at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise _cannot_listen(settings, error) from error
    return listener


def _cannot_listen(settings: Settings, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; stop what "
        "listens there, or choose another with --port (0 takes a free one) or --host"
    )


def start_listening(settings: Settings, listener: socket.socket) -> None:
    """From here on connections are taken. Raises ConfigError where another process was quicker."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _cannot_listen(settings, error) from error


async def check_store(settings: Settings) -> None:
    """Raise StoreMisconfigured where the store refuses us: time will not mend that.

    Of a store that does not answer, the log tells: when it comes back, it is used.
    """
    from .app import make_store

    store = make_store(settings)
    try:
        await store.ping()
    except StoreMisconfigured as error:
        raise StoreMisconfigured(f"{error}; or leave out --redis-url to keep sessions in this process") from error
    except StoreUnavailable as error:
        logger.error(
            "serving WITHOUT the session store: until it answers, clicks are lost and each one is answered by itself",
            extra={"fields": {"cause": str(error)}},
        )
    finally:
        await store.aclose()


def run_server(
    app: FastAPI,
    settings: Settings,
    listener: socket.socket,
    *,
    signals: Sequence[signal.Signals] = STOP_SIGNALS,
    on_hangup: Callable[[], None] | None = None,
    share: Share | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C asks to stop; ``signals`` may have waited until here.

    ``share`` is that of one of several workers.
    """
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        proxy_headers=False,  # nobody here asks where a request came from
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    # Here, because uvloop hides the error of one that was bound to the same port and came second.
    start_listening(settings, listener)
    drain, seconds = app.state.drain, settings.drain_seconds
    server = SharingServer(config, drain, seconds, share) if share else DrainingServer(config, drain, seconds)

    # uvicorn takes signals only while it serves, and raises them again when it has stopped; under Python's own
    # handlers that would kill this process before its last line is out.
    previous = {number: signal.signal(number, server.handle_exit) for number in STOP_SIGNALS}
    if on_hangup:
        hang_up = on_hangup
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda number, frame: hang_up())
    settle()
    if app.state.swapper:
        app.state.swapper.frozen = True
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
