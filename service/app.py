"""Wiring: settings in, an ASGI application out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

from fastapi import FastAPI

from srgnn import __version__, artifact
from srgnn.errors import ConfigError
from srgnn.recommender import Recommender

from .errors import add_error_handlers
from .express import Express
from .inference import Batcher
from .limits import BodyLimit, document_limits
from .routes import router
from .sessions.memory import MemorySessionStore
from .sessions.redis import RedisSessionStore
from .sessions.store import SessionStore
from .settings import PREFIX, Settings
from .state import Service, State
from .telemetry import Metrics, Telemetry


class _Application(FastAPI):
    """FastAPI whose OpenAPI document tells the limits that are set."""

    def openapi(self) -> dict[str, Any]:
        """Make the document on first use, which takes a while."""
        if not self.openapi_schema:
            document_limits(super().openapi(), self.state.settings)
        return super().openapi()


def create_app(
    settings: Settings, *, store: SessionStore | None = None, recommender: Recommender | None = None
) -> FastAPI:
    """The service. ``store`` and ``recommender`` replace those the settings name; a store given is left open.

    Loads and probes the artifact here, before any port is bound. Raises ArtifactError, or ConfigError where
    the settings and the model do not fit together.
    """
    manifest: dict[str, Any] | None = None
    if recommender is None:
        loaded = artifact.load(settings.artifact)
        recommender, manifest = loaded.recommender, loaded.manifest
    _check_keeps_enough(settings, recommender)
    created = manifest and datetime.fromisoformat(manifest["created"])
    metrics = Metrics(recommender.version, created=created or None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            batcher = Batcher(
                recommender,
                queue_size=settings.queue_size,
                max_batch=settings.max_batch,
                torch_threads=settings.torch_threads,
                observe_batch=metrics.batch_size.observe,
            )
            live_store = make_store(settings) if store is None else store
            if store is None:
                stack.push_async_callback(live_store.aclose)
            await stack.enter_async_context(batcher)
            if metrics.shared:
                stack.callback(asyncio.create_task(_tell_queue_length(metrics, batcher)).cancel)
            yield {"service": Service(settings, live_store, recommender, manifest, batcher, metrics)}

    app = _Application(
        title="SRGNN",
        summary="Session-based recommendations: clicks in, the next items out.",
        version=__version__,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.metrics = metrics
    app.state.settings = settings
    app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(Express)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Telemetry, metrics=metrics)  # added last, so outermost
    return app


def make_store(settings: Settings) -> SessionStore:
    """The session store the settings name; it connects on first use."""
    if settings.redis_url is None:
        return MemorySessionStore(
            max_clicks=settings.max_clicks,
            idle_seconds=settings.idle_seconds,
            max_sessions=settings.max_memory_sessions,
        )
    return RedisSessionStore(
        settings.redis_url.get_secret_value(),
        max_clicks=settings.max_clicks,
        idle_seconds=settings.idle_seconds,
        timeout_seconds=settings.store_timeout_ms / 1000,
        max_waiting=settings.store_queue,
    )


async def _tell_queue_length(metrics: Metrics, batcher: Batcher) -> None:
    """Whichever worker is asked for the metrics knows the queues of the others only from what they wrote down."""
    while True:
        metrics.queue_length.set(batcher.waiting)
        await asyncio.sleep(1)


def _check_keeps_enough(settings: Settings, recommender: Recommender) -> None:
    """Fewer stored clicks than the model looks at would change its input, which no setting may."""
    needed = recommender.rules.max_length
    if settings.max_clicks < needed:
        raise ConfigError(
            f"{PREFIX}MAX_CLICKS is {settings.max_clicks}, but model {recommender.version} looks at the last "
            f"{needed} clicks of a session: set it to {needed} or more"
        )
