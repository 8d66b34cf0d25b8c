"""Refusals and failures as RFC 9457 problem+json: what was sent, where, and what to send instead."""

import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from srgnn.errors import InputError, StoreUnavailable

from .schemas import ClickRequest, RecommendationsQuery, RecommendationsRequest, SwapRequest
from .sessions.store import TooManyClicks
from .settings import PREFIX

PROBLEM_JSON = "application/problem+json"
SHOWN_CHARACTERS = 64
"""How much of an offending value is sent back."""
SHOWN_FAULTS = 10


class Fault(NamedTuple):
    """One value of a request that cannot be used."""

    place: str
    """Where it was, for example ``body.histories[3][0]`` or ``path.session_id``."""
    value: str
    """What was found there, cut short; empty where nothing was."""
    problem: str
    remedy: str


class RequestRefused(InputError):
    """A request that is well-formed but out of bounds here; answered with 422."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(_sentence(fault))
        self.fault = fault


def problem(
    status: int,
    detail: str,
    *,
    title: str | None = None,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem+json answer; ``faults`` become its ``errors``."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": _encodable(detail),
    }
    if faults:
        body["errors"] = [{key: _encodable(text) for key, text in fault._asdict().items()} for fault in faults]
    return Response(orjson.dumps(body), status, headers, PROBLEM_JSON)


def shown(value: object) -> str:
    """A value from a request as JSON, short enough to send back; lists and objects only by their size."""
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        return f"{json.dumps(value[:SHOWN_CHARACTERS] + '…', ensure_ascii=False)} ({len(value)} characters)"
    if isinstance(value, str | int | float | None):
        text = json.dumps(value, ensure_ascii=False)
        return text if isinstance(value, str) or len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    return f"a list of {len(value)}" if isinstance(value, list) else f"of type {type(value).__name__}"


def add_error_handlers(app: FastAPI) -> None:
    """Answer expected errors of ``app`` as problems. Unexpected ones are for telemetry, which logs them."""
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(RequestRefused, _on_refused)
    app.add_exception_handler(TooManyClicks, _on_too_many_clicks)
    app.add_exception_handler(StoreUnavailable, _on_store_unavailable)
    app.add_exception_handler(HTTPException, _on_http_error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        return _not_json(found[0]["ctx"]["error"], found[0]["loc"][-1])
    if found[0]["loc"] == ("body",) and isinstance(found[0].get("input"), bytes):
        return _not_declared_json(request)
    faults = [_fault(each) for each in found[:SHOWN_FAULTS]]
    return problem(422, _sentence(faults[0]), title="Invalid request", faults=faults)


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return problem(422, str(error), title="Invalid request", faults=[error.fault])


def too_many_clicks(error: TooManyClicks) -> Response:
    """The answer to a click beyond what one session may have."""
    seconds = math.ceil(error.retry_seconds)
    detail = (
        f"The session got more clicks than it may ({PREFIX}CLICKS_PER_SECOND, {PREFIX}CLICKS_PER_SESSION); this one "
        f"was not stored. Send it again in {seconds} s. GET recommendations go on."
    )
    return problem(429, detail, title="Too many clicks", headers={"Retry-After": str(seconds)})


async def _on_too_many_clicks(request: Request, error: Exception) -> Response:
    assert isinstance(error, TooManyClicks)
    return too_many_clicks(error)


async def _on_store_unavailable(request: Request, error: Exception) -> Response:
    detail = (
        "The session store did not answer in time; nothing can be said about this session now. Try again in "
        "a second. POST /recommendations works without the store."
    )
    return problem(503, detail, title="Session store unavailable", headers={"Retry-After": "1"})


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path, headers = request.method, shown(request.url.path), dict(error.headers or {})
    match error.status_code:
        case 400:
            return _not_json("it is not UTF-8 text, or holds a number or nesting that is too large")
        case 404:
            detail = f"There is nothing at {path}. GET /openapi.json lists what there is."
        case 405:
            headers["Allow"] = _methods(request) or headers.get("Allow", "")
            detail = f"{method} is not possible at {path}. Use {headers['Allow']}."
        case _:
            detail = str(error.detail)
    return problem(error.status_code, detail, headers=headers)


def _methods(request: Request) -> str:
    """Every method of the path asked for; Starlette names only those of the first route that has it."""
    template = getattr(request.scope.get("route"), "path", None)
    return ", ".join(sorted(method.upper() for method in request.app.openapi()["paths"].get(template, {})))


def _not_json(cause: str, position: object = None) -> Response:
    where = "" if position is None else f" at character {position}"
    fault = Fault("body", "", f"not JSON: {cause}{where}", 'send one JSON object, for example {"item_id": "42"}')
    return problem(400, _sentence(fault), title="The body is not JSON", faults=[fault])


def _not_declared_json(request: Request) -> Response:
    sent = request.headers.get("content-type")
    fault = Fault(
        "header.content-type",
        shown(sent) if sent else "",
        "the body is not declared as JSON",
        "send the header 'Content-Type: application/json'",
    )
    return problem(415, _sentence(fault), faults=[fault])


def _fault(error: Mapping[str, Any]) -> Fault:
    value = "" if error["type"] == "missing" else shown(error.get("input"))
    message = PROBLEMS.get(error["type"]) or error["msg"]
    return Fault(_place(error["loc"]), value, message[0].lower() + message[1:], _remedy(error))


def _place(location: Sequence[str | int]) -> str:
    """``("body", "histories", 3)`` as ``body.histories[3]``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return shown("".join(parts).removeprefix(".")).strip('"')


def _remedy(error: Mapping[str, Any]) -> str:
    kind, location = error["type"], error["loc"]
    if kind == "extra_forbidden":
        close = get_close_matches(str(location[-1]), FIELDS, n=1)
        return f"did you mean {close[0]!r}?" if close else "leave it out; /openapi.json lists the fields of this call"
    if location == ("body",):
        return 'send a JSON object, for example {"item_id": "42"}'
    if kind == "string_type":
        return 'send a string in quotes, for example "42"'
    return REMEDIES.get(kind) or REMEDIES.get(str(location[-1])) or "see /docs for what is expected here"


FIELDS = sorted(
    {
        name
        for model in (ClickRequest, RecommendationsRequest, RecommendationsQuery, SwapRequest)
        for name in model.model_fields
    }
)
PROBLEMS = {
    "extra_forbidden": "no such field here",
    "model_attributes_type": "not a JSON object",
    "string_pattern_mismatch": "holds a character that is not allowed here",
    "too_short": "empty",
}
"""By the error's type, where pydantic's own words would not help whoever sent the request."""

REMEDIES = {
    "missing": "send this field",
    "k": "send a whole number, 1 or more",
    "bool_type": "send true or false",
    "list_type": 'send a list of strings, for example ["42", "17"]',
    "session_id": "use 1 to 128 letters, digits and -._~!$&'()*+,;=:@, not beginning with a dot",
    "event_id": "use 1 to 128 printable ASCII characters without spaces, for example a UUID",
    "item_id": "use 1 to 256 characters without control characters or line breaks",
    "artifact": "send the name of a directory beside LATEST, not a path",
    "histories": 'send at least one history, for example [["42", "17"]]; a history itself may be empty',
    "item_id_invalid": "use 1 to 256 characters without control characters or line breaks",
}
"""By the error's type, else by the field's name."""


def _sentence(fault: Fault) -> str:
    found = f" is {fault.value}" if fault.value else ""
    end = "" if fault.remedy.endswith("?") else "."
    return f"{fault.place}{found}: {fault.problem}; {fault.remedy}{end}"


def _encodable(text: str) -> str:
    """JSON may smuggle in half surrogate pairs, which UTF-8 cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode()
