"""The OpenAPI document and the page that shows it, with everything it loads served from here.

FastAPI's own page loads scripts from other servers: it would need their names in its Content-Security-Policy, and shows
nothing on a machine without a way out. The same files come with the package fastapi-offline, of which nothing else is
used.
"""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

import orjson
from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles

DOCUMENT = "/openapi.json"
PAGE = "/docs"


def add_docs(app: FastAPI, *, with_keys: bool) -> None:
    """Serve both; ``with_keys`` adds a field for a key to the page."""

    @cache  # made anew it would take a millisecond, and anybody may ask for it
    def document() -> bytes:
        schema = app.openapi()
        if with_keys:
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
        return orjson.dumps(schema)

    @app.get(DOCUMENT, include_in_schema=False)
    async def openapi() -> Response:
        return Response(document(), media_type="application/json")

    @app.get(PAGE, include_in_schema=False)
    async def docs() -> Response:
        return _page(app.title)

    app.mount(PAGE, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs-files")


@cache
def _page(title: str) -> Response:
    page = get_swagger_ui_html(
        openapi_url=DOCUMENT,
        title=title,
        swagger_js_url=f"{PAGE}/swagger-ui-bundle.js",
        swagger_css_url=f"{PAGE}/swagger-ui.css",
        swagger_favicon_url=f"{PAGE}/favicon.png",
        oauth2_redirect_url=None,
    )
    [script] = re.findall(rb"<script>(.*?)</script>", page.body, re.DOTALL)
    policy = (
        f"default-src 'none'; script-src 'self' 'sha256-{b64encode(sha256(script).digest()).decode()}'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    page.headers["Content-Security-Policy"] = policy
    page.headers["X-Content-Type-Options"] = "nosniff"
    page.headers["Referrer-Policy"] = "no-referrer"
    page.headers["Cache-Control"] = "no-store"
    return page
