"""Wiring: settings in, an ASGI application out."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
from .tracing import Traces, Tracing, start_tracing, stop_tracing
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
    model = _load(settings, link) if recommender is None else _given(settings, recommender)
    keys = Keys(settings.keys_file, settings.key_rate) if settings.keys_file else None
    service = _service(settings, model, store)
    live = Live(service)
    swapper = _swapper(live, model.versions, link)
    tracing = start_tracing()
    app = _Application(
        title="SRGNN",
        summary="Session-based recommendations: clicks in, the next items out.",
        version=__version__,
        lifespan=_lifespan(live, swapper, keys, tracing, closes_store=store is None),
        openapi_url=None,  # add_docs serves both, without other servers
        generate_unique_id_function=lambda route: route.name,
        telemetry=NO_TELEMETRY,
    )
    app.state.settings, app.state.swapper = settings, swapper
    app.state.metrics, app.state.drain = service.metrics, service.drain
    app.include_router(router)
    add_docs(app, with_keys=keys is not None)
    add_error_handlers(app)
    _add_middleware(app, service, keys, tracing)
    return app


class _Model(NamedTuple):
    """What answers at first, and where it is from: nothing is known of one that was given."""

    recommender: Recommender
    versions: Versions | None = None
    manifest: dict[str, Any] | None = None
    created: datetime | None = None


def _load(settings: Settings, link: Link | None) -> _Model:
    versions = link.versions if link else Versions(settings.artifact)
    loaded = load(settings, versions.current)
    return _Model(loaded.recommender, versions, loaded.manifest, loaded.created)


def _given(settings: Settings, recommender: Recommender) -> _Model:
    check_keeps_enough(settings, recommender)
    return _Model(recommender)


def _service(settings: Settings, model: _Model, store: SessionStore | None) -> Service:
    metrics = Metrics(model.recommender.version, created=model.created)
    batcher = Batcher(
        queue_size=settings.queue_size,
        max_batch=settings.max_batch,
        torch_threads=settings.torch_threads,
        observe_batch=metrics.batch_size.observe,
    )
    previous = model.versions.previous if model.versions else None
    return Service(
        settings=settings,
        store=make_store(settings, metrics.store_opened) if store is None else store,
        recommender=model.recommender,
        manifest=model.manifest,
        batcher=batcher,
        metrics=metrics,
        quality=Quality(metrics, Path(os.environ[METRICS_DIRECTORY]) if metrics.shared else None),
        load=Load(settings.max_under_way, settings.burst, metrics.refused),
        previous=previous.name if previous else None,
    )


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


def _swapper(live: Live, versions: Versions | None, link: Link | None) -> Alone | Member | None:
    if versions is None:
        return None
    return Member(live, link) if link else Alone(live, versions)


def _lifespan(
    live: Live,
    swapper: Alone | Member | None,
    keys: Keys | None,
    tracing: Tracing | None,
    *,
    closes_store: bool,
) -> Callable[[FastAPI], AbstractAsyncContextManager[State]]:
    """What runs beside the requests, from the first to the last of them."""
    # They outlive every swap. The service itself must not be kept here: it holds the first model.
    store, batcher, metrics = live.service.store, live.service.batcher, live.service.metrics

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            if tracing:
                stack.push_async_callback(stop_tracing, tracing)  # first in, so last out
            if closes_store:
                stack.push_async_callback(store.aclose)
            await stack.enter_async_context(batcher)
            if metrics.shared:
                stack.callback(asyncio.create_task(_tell_queue_length(metrics, batcher)).cancel)
            if keys is not None:
                stack.callback(asyncio.create_task(keys.follow()).cancel)
            if swapper:
                await stack.enter_async_context(swapper)
            yield {"live": live, "swaps": swapper}

    return lifespan


async def _tell_queue_length(metrics: Metrics, batcher: Batcher) -> None:
    """Whichever worker is asked for the metrics knows the queues of the others only from what they wrote down."""
    while True:
        metrics.queue_length.set(batcher.waiting)
        await asyncio.sleep(1)


def _add_middleware(app: FastAPI, service: Service, keys: Keys | None, tracing: Tracing | None) -> None:
    """From the inside out: a request goes through the last one first."""
    app.add_middleware(Express)
    app.add_middleware(BodyLimit, max_bytes=service.settings.max_body_bytes)
    app.add_middleware(Access, keys=keys)
    app.add_middleware(CloseConnections, drain=service.drain)
    app.add_middleware(Telemetry, metrics=service.metrics)  # around all that answers
    if tracing:
        app.add_middleware(Traces, tracer=tracing.provider.get_tracer("srgnn", __version__))
    app.add_middleware(Shedding, load=service.load)
    app.add_middleware(SecurityHeaders)
