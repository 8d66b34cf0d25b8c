"""The bounds of a request that depend on the settings or the catalogue."""

from collections.abc import Sized
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import Fault, RequestRefused, problem, shown
from .settings import PREFIX, Settings


def resolve_k(k: int | None, *, default: int, max_k: int, catalogue: int, place: str) -> int:
    """How many items to answer with. Raises RequestRefused past the limit or the catalogue."""
    if k is None:
        return min(default, catalogue)
    most = min(max_k, catalogue)
    if k > most:
        bound = f"the catalogue has {catalogue} items" if catalogue < max_k else f"the limit is {max_k} ({PREFIX}MAX_K)"
        raise RequestRefused(Fault(place, shown(k), bound, f"send a whole number from 1 to {most}"))
    return k


def check_size(values: Sized, limit: int, *, place: str, setting: str) -> None:
    """Raise RequestRefused where a list is longer than its setting allows."""
    if len(values) > limit:
        bound = f"the limit is {limit} ({PREFIX}{setting.upper()})"
        raise RequestRefused(Fault(place, shown(values), bound, f"send at most {limit}"))


def document_limits(document: dict[str, Any], settings: Settings) -> None:
    """Write into an OpenAPI document what the settings add to the schemas."""
    schemas = document["components"]["schemas"]
    click, bulk = (schemas[name]["properties"] for name in ("ClickRequest", "RecommendationsRequest"))
    query = document["paths"]["/sessions/{session_id}/recommendations"]["get"]["parameters"]
    for k in (click["k"], bulk["k"], *(parameter["schema"] for parameter in query if parameter["name"] == "k")):
        k["anyOf"][0]["maximum"] = settings.max_k  # the other is null
    for exclude in (click["exclude"], bulk["exclude"]):
        exclude["maxItems"] = settings.max_exclude
    bulk["histories"]["maxItems"] = settings.max_histories
    bulk["histories"]["items"]["maxItems"] = settings.max_history_length


class BodyLimit:
    """ASGI middleware: a body of more than ``max_bytes`` is refused with 413 before it is read or parsed."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self.max_bytes:
            return await problem(413, self._detail(f"{declared} bytes"))(scope, receive, send)
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, self._detail(f"more than {self.max_bytes} bytes"))
            return message

        await self.app(scope, receive_limited, send)

    def _detail(self, size: str) -> str:
        return (
            f"body is {size}: the limit is {self.max_bytes} ({PREFIX}MAX_BODY_BYTES); send fewer "
            "histories or shorter lists in one request."
        )
