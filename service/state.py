"""What the endpoints work with, made once by :func:`service.app.create_app`."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Protocol, TypedDict, cast

from fastapi import Depends, Request

from srgnn.recommender import Recommender

from .drain import Drain
from .inference import Batcher
from .overload import Load
from .quality import Quality
from .sessions.store import SessionStore
from .settings import Settings
from .telemetry import Metrics
from .versions import Outcome, Wanted


@dataclass(frozen=True)
class Service:
    """The parts of a running service. A request has one to its end, and so one model: see :class:`Live`."""

    settings: Settings
    store: SessionStore
    recommender: Recommender
    manifest: dict[str, Any] | None
    batcher: Batcher
    metrics: Metrics
    quality: Quality
    load: Load
    previous: str | None = None
    """The model before this one."""
    drain: Drain = field(default_factory=Drain)


class Live:
    """The service as it is now. A swap puts another one here, for the requests that begin after it."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def serve(self, recommender: Recommender, manifest: dict[str, Any], *, previous: str) -> None:
        """Answer with another model from now on."""
        self.service = replace(self.service, recommender=recommender, manifest=manifest, previous=previous)


class Swaps(Protocol):
    """Whoever can swap the model for the whole service."""

    async def swap(self, wanted: Wanted) -> Outcome:
        """Do it, or say why not."""
        ...


class State(TypedDict):
    """The application's lifespan state."""

    live: Live
    swaps: Swaps | None


async def _service(request: Request) -> Service:  # async, or FastAPI would take a thread for it
    return cast(Live, request.state.live).service


async def _swaps(request: Request) -> Swaps | None:
    return cast(Swaps | None, request.state.swaps)


ServiceDependency = Annotated[Service, Depends(_service)]
SwapsDependency = Annotated[Swaps | None, Depends(_swaps)]
