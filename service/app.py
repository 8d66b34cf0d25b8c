"""Wiring: settings in, an ASGI application out."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from srgnn import __version__
from srgnn.recommender import Recommender

from .access import Access
from .docs import add_docs
from .drain import CloseConnections
from .errors import add_error_handlers
from .express import Express
from .headers import SecurityHeaders
from .inference import Batcher
from .keys import Keys
from .limits import BodyLimit, document_limits
from .member import Member
from .overload import Load, Shedding
from .quality import Quality
from .routes import router
from .sessions.breaker import Breaker
from .sessions.memory import MemorySessionStore
from .sessions.redis import RedisSessionStore
from .sessions.store import SessionStore
from .settings import Settings
from .state import Live, Service, State
from .swap import Alone, check_keeps_enough, load
from .telemetry import METRICS_DIRECTORY, Metrics, Telemetry
from .tracing import Traces, start_tracing, stop_tracing
from .versions import Versions
from .worker import Link

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

NO_TELEMETRY: "TelemetryConfig" = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""Of FastAPI's own: its spans hold the path, and so the session id."""


class _Application(FastAPI):
    """FastAPI whose OpenAPI document tells the limits that are set."""

    def openapi(self) -> dict[str, Any]:
        """Make the document on first use, which takes a while."""
        if not self.openapi_schema:
            document_limits(super().openapi(), self.state.settings)
        return super().openapi()


def create_app(
    settings: Settings,
    *,
    store: SessionStore | None = None,
    recommender: Recommender | None = None,
    link: Link | None = None,
) -> FastAPI:
    """The service. ``store`` and ``recommender`` replace those the settings name; a store given is left open.

    ``link`` ties one of several workers to its parent, which chooses the artifact.

    Loads and probes the artifact here, before any port is bound. Raises ArtifactError, or ConfigError where
    the settings and the model do not fit together, the keys cannot be read, or traces are asked for that cannot be had.
    """
    versions: Versions | None = None
    created = manifest = None
    if recommender is None:
        versions = link.versions if link else Versions(settings.artifact)
        loaded = load(settings, versions.current)
        recommender, manifest, created = loaded.recommender, loaded.manifest, loaded.created
    else:
        check_keeps_enough(settings, recommender)
    keys = Keys(settings.keys_file, settings.key_rate) if settings.keys_file else None
    metrics = Metrics(recommender.version, created=created)
    batcher = Batcher(
        queue_size=settings.queue_size,
        max_batch=settings.max_batch,
        torch_threads=settings.torch_threads,
        observe_batch=metrics.batch_size.observe,
    )
    live_store = make_store(settings, metrics.store_opened) if store is None else store
    quality = Quality(metrics, Path(os.environ[METRICS_DIRECTORY]) if metrics.shared else None)
    busy = Load(settings.max_under_way, metrics.refused)
    previous = versions.previous.name if versions and versions.previous else None
    live = Live(Service(settings, live_store, recommender, manifest, batcher, metrics, quality, busy, previous))
    swapper = _swapper(live, versions, link)
    tracing = start_tracing()

    # It lives as long as the application, so it must not hold the first model.
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            if tracing:
                stack.push_async_callback(stop_tracing, tracing)  # first in, so last out
            if store is None:
                stack.push_async_callback(live_store.aclose)
            await stack.enter_async_context(batcher)
            if metrics.shared:
                stack.callback(asyncio.create_task(_tell_queue_length(metrics, batcher)).cancel)
            if keys is not None:
                stack.callback(asyncio.create_task(keys.follow()).cancel)
            if swapper:
                await stack.enter_async_context(swapper)
            yield {"live": live, "swaps": swapper}

    app = _Application(
        title="SRGNN",
        summary="Session-based recommendations: clicks in, the next items out.",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,  # add_docs serves both, without other servers
        generate_unique_id_function=lambda route: route.name,
        telemetry=NO_TELEMETRY,
    )
    app.state.metrics, app.state.drain, app.state.swapper = metrics, live.service.drain, swapper
    app.state.settings = settings
    app.include_router(router)
    add_docs(app, with_keys=keys is not None)
    add_error_handlers(app)
    app.add_middleware(Express)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Access, keys=keys)
    app.add_middleware(CloseConnections, drain=live.service.drain)
    app.add_middleware(Telemetry, metrics=metrics)  # around all that answers
    if tracing:
        app.add_middleware(Traces, tracer=tracing.get_tracer("srgnn", __version__))
    app.add_middleware(Shedding, load=busy)
    app.add_middleware(SecurityHeaders)  # added last, so outermost
    return app


def make_store(settings: Settings, opened: Callable[[bool], None] = lambda opened: None) -> SessionStore:
    """The session store the settings name; it connects on first use. ``opened`` is for :class:`Breaker`."""
    if settings.redis_url is None:
        return MemorySessionStore(
            max_clicks=settings.max_clicks,
            idle_seconds=settings.idle_seconds,
            max_sessions=settings.max_memory_sessions,
            clicks_per_second=settings.clicks_per_second,
            clicks_per_session=settings.clicks_per_session,
        )
    redis = RedisSessionStore(
        settings.redis_url.get_secret_value(),
        max_clicks=settings.max_clicks,
        idle_seconds=settings.idle_seconds,
        timeout_seconds=settings.store_timeout_ms / 1000,
        max_waiting=settings.store_queue,
        clicks_per_second=settings.clicks_per_second,
        clicks_per_session=settings.clicks_per_session,
        stream_length=settings.click_stream_length,
    )
    return Breaker(redis, opened)


async def _tell_queue_length(metrics: Metrics, batcher: Batcher) -> None:
    """Whichever worker is asked for the metrics knows the queues of the others only from what they wrote down."""
    while True:
        metrics.queue_length.set(batcher.waiting)
        await asyncio.sleep(1)


def _swapper(live: Live, versions: Versions | None, link: Link | None) -> Alone | Member | None:
    if versions is None:
        return None
    return Member(live, link) if link else Alone(live, versions)
