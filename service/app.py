"""Wiring: settings in, an ASGI application out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from srgnn import __version__
from srgnn.recommender import Recommender

from .drain import CloseConnections
from .errors import add_error_handlers
from .express import Express
from .inference import Batcher
from .limits import BodyLimit
from .member import Member
from .routes import router
from .sessions.memory import MemorySessionStore
from .sessions.redis import RedisSessionStore
from .sessions.store import SessionStore
from .settings import Settings
from .state import Live, Service, State
from .swap import Alone, check_keeps_enough, load
from .telemetry import Metrics, Telemetry
from .versions import Versions
from .worker import Link


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
    the settings and the model do not fit together.
    """
    versions: Versions | None = None
    created = manifest = None
    if recommender is None:
        versions = link.versions if link else Versions(settings.artifact)
        loaded = load(settings, versions.current)
        recommender, manifest, created = loaded.recommender, loaded.manifest, loaded.created
    else:
        check_keeps_enough(settings, recommender)
    metrics = Metrics(recommender.version, created=created)
    batcher = Batcher(
        queue_size=settings.queue_size,
        max_batch=settings.max_batch,
        torch_threads=settings.torch_threads,
        observe_batch=metrics.batch_size.observe,
    )
    live_store = make_store(settings) if store is None else store
    previous = versions.previous.name if versions and versions.previous else None
    live = Live(Service(settings, live_store, recommender, manifest, batcher, metrics, previous))
    swapper = _swapper(live, versions, link)

    # It lives as long as the application, so it must not hold the first model.
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            if store is None:
                stack.push_async_callback(live_store.aclose)
            await stack.enter_async_context(batcher)
            if metrics.shared:
                stack.callback(asyncio.create_task(_tell_queue_length(metrics, batcher)).cancel)
            if swapper:
                await stack.enter_async_context(swapper)
            yield {"live": live, "swaps": swapper}

    app = FastAPI(
        title="SRGNN",
        summary="Session-based recommendations: clicks in, the next items out.",
        version=__version__,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.metrics, app.state.drain, app.state.swapper = metrics, live.service.drain, swapper
    app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(Express)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(CloseConnections, drain=live.service.drain)
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


def _swapper(live: Live, versions: Versions | None, link: Link | None) -> Alone | Member | None:
    if versions is None:
        return None
    return Member(live, link) if link else Alone(live, versions)
