"""A short way for the two requests that come thousands of times a second.

FastAPI spends about 0.1 ms on each request: matching, dependencies, validation parameter by parameter. A good click or
list of histories is read here by pydantic straight from its bytes and answered by the very function of its route.
Whatever is unusual or refused takes FastAPI's way from the start: there is one set of rules and of error messages.
"""

import re
from typing import NamedTuple

from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import routes
from .errors import RequestRefused, too_many_clicks
from .schemas import SESSION_ID_PATTERN, ClickRequest, RecommendationsRequest
from .sessions.store import TooManyClicks


class _Way(NamedTuple):
    path: re.Pattern[str]
    """Its groups are the route's path parameters."""
    schema: type[BaseModel]
    route: APIRoute


def _route_of(endpoint: object) -> APIRoute:
    return next(route for route in routes.router.routes if isinstance(route, APIRoute) and route.endpoint is endpoint)


_SESSION_ID = SESSION_ID_PATTERN.removeprefix("^").removesuffix("$")
_WAYS = (
    _Way(re.compile(f"/sessions/(?P<session_id>{_SESSION_ID})/click"), ClickRequest, _route_of(routes.click)),
    _Way(re.compile("/recommendations"), RecommendationsRequest, _route_of(routes.recommendations)),
)


class Express:
    """ASGI middleware directly in front of FastAPI, behind the limit on bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["method"] != "POST" or not _is_plain_json(scope):
            return await self.app(scope, receive, send)
        for way in _WAYS:
            if match := way.path.fullmatch(scope["path"]):
                break
        else:
            return await self.app(scope, receive, send)
        messages = await _read(receive)
        scope["route"] = way.route  # as FastAPI does, for the metrics' labels
        try:
            request = way.schema.model_validate_json(b"".join(message.get("body", b"") for message in messages))
            response = await way.route.endpoint(
                **match.groupdict(), request=request, service=scope["state"]["live"].service
            )
        except (ValidationError, RequestRefused):
            return await self.app(scope, _again(messages, receive), send)
        except TooManyClicks as error:
            response = too_many_clicks(error)
        await response(scope, receive, send)


def _is_plain_json(scope: Scope) -> bool:
    """Declared as JSON and with its length, which the limit on bodies has seen."""
    headers = dict(scope["headers"])
    return headers.get(b"content-type") == b"application/json" and b"content-length" in headers


async def _read(receive: Receive) -> list[Message]:
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


def _again(messages: list[Message], receive: Receive) -> Receive:
    """What was received, and then what is still to come."""
    remaining = iter(messages)

    async def replay() -> Message:
        return next(remaining, None) or await receive()

    return replay
