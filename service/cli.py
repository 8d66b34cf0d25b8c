"""``srgnn serve``."""

import asyncio
import logging
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import uvicorn
from fastapi import FastAPI

from srgnn.cli import emit
from srgnn.errors import ConfigError, StoreUnavailable

from .settings import Settings, load_settings
from .telemetry import configure_logging

if TYPE_CHECKING:
    from srgnn.recommender import Recommender

logger = logging.getLogger(__name__)


@click.command()
@click.option("--artifact", type=click.Path(path_type=Path), help="Artifact, or the folder that holds LATEST.")
@click.option("--redis-url", help="Session store; without one, sessions live in this process.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
def serve(artifact: Path | None, redis_url: str | None, host: str | None, port: int | None) -> None:
    """Answer over HTTP until SIGTERM or Ctrl-C; requests under way are finished first.

    Every other setting is an environment variable, SRGNN_...; these options override theirs.
    """
    run_service(load_settings(artifact=artifact, redis_url=redis_url, host=host, port=port))


def run_service(settings: Settings, recommender: "Recommender | None" = None) -> None:
    """Serve, and say at the end what was done; ``recommender`` takes the place of the settings' artifact."""
    configure_logging(settings.log_level)
    with _listener(settings) as listener:
        from .app import create_app  # brings torch: not for --help, nor before wrong settings are told

        app = create_app(settings, recommender=recommender)
        asyncio.run(_check_store(settings))
        artifact = recommender.version if recommender else str(settings.artifact)
        url = f"http://{settings.host}:{listener.getsockname()[1]}"
        logger.info("serving", extra={"fields": {"url": url, "artifact": artifact}})
        started = time.monotonic()
        _run(app, settings, listener)
    emit({"served": app.state.metrics.served, "seconds": round(time.monotonic() - started, 3)})


def _listener(settings: Settings) -> socket.socket:
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


async def _check_store(settings: Settings) -> None:
    """Raise StoreUnavailable where the store does not answer at the start: most likely the URL is wrong.

    Later failures are not fatal, the service then answers without the store.
    """
    from .app import make_store

    store = make_store(settings)
    try:
        await store.ping()
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{error}; or leave out --redis-url to keep sessions in this process") from error
    finally:
        await store.aclose()


def _run(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    """Serve until a signal asks to stop."""
    config = uvicorn.Config(
        app,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    try:
        # Here, because uvloop hides the error of one that was bound to the same port and came second.
        listener.listen(config.backlog)
    except OSError as error:
        raise _cannot_listen(settings, error) from error
    server = uvicorn.Server(config)

    def stop(number: int, frame: object) -> None:
        server.should_exit = True

    # uvicorn raises the signal again when it has stopped; under Python's own handlers that would kill this
    # process before its last line is out.
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
