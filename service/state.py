"""What the endpoints work with, made once by :func:`service.app.create_app`."""

from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, cast

from fastapi import Depends, Request

from srgnn.recommender import Recommender

from .inference import Batcher
from .overload import Load
from .quality import Quality
from .sessions.store import SessionStore
from .settings import Settings
from .telemetry import Metrics


@dataclass(frozen=True)
class Service:
    """The parts of a running service."""

    settings: Settings
    store: SessionStore
    recommender: Recommender
    manifest: dict[str, Any] | None
    batcher: Batcher
    metrics: Metrics
    quality: Quality
    load: Load


class State(TypedDict):
    """The application's lifespan state."""

    service: Service


async def _service(request: Request) -> Service:  # async, or FastAPI would take a thread for it
    return cast(Service, request.state.service)


ServiceDependency = Annotated[Service, Depends(_service)]
