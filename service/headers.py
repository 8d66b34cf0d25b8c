"""Headers that every answer carries: a browser that is made to ask must not show, run, keep or share it."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .docs import PAGE

# No Referrer-Policy: without a page there is no link. No Strict-Transport-Security: it is for whoever speaks TLS.
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)


class SecurityHeaders:
    """ASGI middleware: adds :data:`HEADERS` to every answer but the documentation page, which has its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["path"] == PAGE:
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self.app(scope, receive, send_with_headers)
