"""The life of one of several workers, in a process of its own; :mod:`service.workers` is its parent.

The parent imports this, so torch is only imported inside.
"""

import asyncio
import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time
from ctypes import c_ulong
from dataclasses import dataclass
from multiprocessing.connection import Connection

from fastapi import FastAPI

from srgnn.errors import SRGNNError

from .cli import check_store, run_server
from .settings import Settings
from .sharing import Share
from .telemetry import METRICS_DIRECTORY, configure_logging
from .versions import Versions

LOADED, SERVE = "loaded", "serve"
OVERTIME_SECONDS = 5
"""What a worker may take to end beyond what the settings allow before it is killed."""


@dataclass(frozen=True)
class Link:
    """What ties a worker to its parent."""

    pipe: "Connection"
    beats: c_ulong
    """In memory that both see, counted up by the worker: messages would block it where its parent is held up."""
    share: Share
    versions: Versions
    """The worker's own copy."""


def stop_seconds(settings: Settings) -> int:
    """Longest that a worker takes to end in order."""
    return settings.drain_seconds + settings.shutdown_seconds + OVERTIME_SECONDS


def work(settings: Settings, listener: socket.socket, link: Link, replaces_another: bool) -> None:
    """Load, say so, and serve when told to."""
    configure_logging(settings.log_level)
    threading.Thread(target=_end_with_parent, args=(stop_seconds(settings),), daemon=True).start()
    try:
        app = _load(settings, link, replaces_another)
        link.pipe.send(LOADED)
        link.pipe.recv()
    except SRGNNError as error:
        link.pipe.send(error)
    except (EOFError, ConnectionError):
        pass  # the parent is gone
    else:
        # Ctrl-C in a terminal reaches every process of the service; only the parent passes it on.
        run_server(app, settings, listener, signals=[signal.SIGTERM], share=link.share)
    parent = multiprocessing.parent_process()
    if parent and not parent.is_alive():
        shutil.rmtree(os.environ[METRICS_DIRECTORY], ignore_errors=True)


def _load(settings: Settings, link: Link, replaces_another: bool) -> FastAPI:
    from .app import create_app

    app = create_app(settings, link=link)
    if replaces_another:
        app.state.metrics.replacements.inc()
    else:  # later on, nothing about the store is a reason not to serve
        asyncio.run(check_store(settings))
    return app


def _end_with_parent(seconds: int) -> None:
    """Stop gracefully when the parent is gone, however it went; by force where that does not work."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)
    os._exit(1)
