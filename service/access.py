"""Who may ask for what, decided before anything of a request but its head is looked at."""

import re
from functools import cache

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from .errors import problem
from .keys import Keys, Scope
from .settings import PREFIX

OPEN = frozenset({"/livez", "/readyz", "/openapi.json", "/docs"})
"""What anybody may ask for: health, and a documentation that is the same everywhere."""
OPEN_BELOW = "/docs/"
_THIS_MACHINE = re.compile(rb"https?://(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")


def needed_scope(method: str, path: str) -> Scope | None:
    """The scope a request needs; what is not listed here is for ``admin`` alone."""
    if path.startswith("/admin/"):
        return "admin"
    if path in OPEN or path.startswith(OPEN_BELOW):
        return None
    if method in ("GET", "HEAD") or path == "/recommendations":
        return "read"
    return "click" if path.startswith("/sessions/") else "admin"


class Access:
    """ASGI middleware: lets a request pass that brings a key with the scope it needs.

    Without ``keys`` everything passes but what another site's page sends from a browser on this machine: then the
    service listens on loopback only (:class:`service.settings.Settings` sees to it), where such pages get through.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            return await refusal(scope, receive, send)
        await self.app(scope, receive, send)

    def _refusal(self, scope: Connection) -> Response | None:
        if self.keys is None:
            return _OTHER_SITE if _is_from_another_site(scope) else None
        needed = needed_scope(scope["method"], scope["path"])
        if needed is None:
            return None
        key = _presented(scope)
        grant = self.keys.find(key)
        if grant is None:
            return _unknown(needed, sent=bool(key))
        if needed not in grant.scopes:
            return _not_allowed(needed)
        return None if grant.bucket.take() else _TOO_MANY


def _header(scope: Connection, name: bytes) -> bytes:
    for found, value in scope["headers"]:
        if found == name:
            return value  # type: ignore[no-any-return]
    return b""


def _presented(scope: Connection) -> bytes:
    scheme, _, key = _header(scope, b"authorization").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def _is_from_another_site(scope: Connection) -> bool:
    """Browsers name the page's origin with whatever it writes, and a page cannot forge it."""
    origin = _header(scope, b"origin")
    return bool(origin) and not _THIS_MACHINE.fullmatch(origin)


# Made once each: a flood of wrong keys must cost little.


@cache
def _unknown(needed: Scope, *, sent: bool) -> Response:
    found = "the key that was sent is not known here" if sent else "no key was sent"
    detail = (
        f"This needs a key with scope '{needed}', and {found}: send the header 'Authorization: Bearer KEY'. Whoever "
        f"runs the service makes one with: srgnn keys --file FILE --name NAME --scope {needed}"
    )
    challenge = 'Bearer realm="srgnn"' + (', error="invalid_token"' if sent else "")
    return problem(401, detail, headers={"WWW-Authenticate": challenge})


@cache
def _not_allowed(needed: Scope) -> Response:
    detail = (
        f"This needs a key with scope '{needed}', which the key that was sent has not. Whoever runs the service "
        f"makes one with: srgnn keys --file FILE --name NAME --scope {needed}"
    )
    challenge = f'Bearer realm="srgnn", error="insufficient_scope", scope="{needed}"'
    return problem(403, detail, headers={"WWW-Authenticate": challenge})


_TOO_MANY = problem(
    429,
    f"This key asks for more than {PREFIX}KEY_RATE requests a second: send fewer, or try again in a second.",
    headers={"Retry-After": "1"},
)
_OTHER_SITE = problem(
    403,
    "A page of another site sent this, and the service runs without keys: it answers no other sites then. Make a key "
    "with: srgnn keys --file FILE --name NAME --scope SCOPE, and start the service with SRGNN_KEYS_FILE=FILE.",
)
