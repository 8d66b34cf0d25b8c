import httpx
from fastapi import FastAPI

from service.state import ServiceDependency


async def test_endpoints_get_the_service_of_the_lifespan_state() -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint(service: ServiceDependency) -> str:
        return str(service)

    async def with_state(scope, receive, send):  # type: ignore[no-untyped-def]
        scope["state"] = {"service": "the one made at the start"}
        await app(scope, receive, send)

    transport = httpx.ASGITransport(app=with_state)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/")).json() == "the one made at the start"
