import ast
import inspect
from collections.abc import AsyncIterator

import httpx
import pytest

from service import routes
from service.app import create_app
from service.schemas import RecommendationsAnswer, SessionAnswer, SessionHistory
from service.sessions.memory import MemorySessionStore
from service.sessions.store import Session
from service.settings import load_settings
from srgnn.errors import StoreUnavailable
from srgnn.recommender import Recommender
from tests.conftest import ClientOf


@pytest.fixture
async def client(tiny_recommender: Recommender, client_of: ClientOf) -> AsyncIterator[httpx.AsyncClient]:
    settings = load_settings(max_histories=4, max_history_length=5, max_exclude=3, max_k=30, deadline_ms=30_000)
    async with client_of(create_app(settings, recommender=tiny_recommender)) as client:
        yield client


class BrokenStore(MemorySessionStore):
    async def append(self, session_id: str, item_id: str, event_id: str | None = None) -> Session:
        raise StoreUnavailable("down")

    async def read(self, session_id: str) -> Session:
        raise StoreUnavailable("down")

    async def delete(self, session_id: str) -> None:
        raise StoreUnavailable("down")

    async def ping(self) -> None:
        raise StoreUnavailable("down")


@pytest.fixture
async def storeless(tiny_recommender: Recommender, client_of: ClientOf) -> AsyncIterator[httpx.AsyncClient]:
    store = BrokenStore(max_clicks=10, idle_seconds=60, max_sessions=10)
    app = create_app(load_settings(deadline_ms=30_000), store=store, recommender=tiny_recommender)
    async with client_of(app) as client:
        yield client


async def click(client: httpx.AsyncClient, session_id: str, item_id: str, **fields: object) -> dict[str, object]:
    response = await client.post(f"/sessions/{session_id}/click", json={"item_id": item_id, **fields})
    assert response.status_code == 200, response.text
    SessionAnswer.model_validate_json(response.content)
    answer: dict[str, object] = response.json()
    return answer


def items_of(answer: dict[str, object]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]  # type: ignore[attr-defined]


async def test_click_answers_for_the_whole_session(client: httpx.AsyncClient, tiny_recommender: Recommender) -> None:
    await click(client, "s", "100")
    answer = await click(client, "s", "117", k=5)
    [expected] = tiny_recommender.recommend([["100", "117"]], 5)
    assert answer == {
        "session_id": "s",
        "items": [
            {"item_id": item, "score": score} for item, score in zip(expected.item_ids, expected.scores, strict=True)
        ],
        "source": "model",
        "degraded": None,
        "clicks": 2,
        "model": "tiny-1",
    }


async def test_twenty_items_unless_asked_otherwise(client: httpx.AsyncClient) -> None:
    assert len(items_of(await click(client, "s", "100"))) == 20
    assert len(items_of(await click(client, "s", "100", k=1))) == 1
    assert len(items_of(await click(client, "s", "100", k=30))) == 30


async def test_unknown_item_is_stored_and_skipped_by_the_model(client: httpx.AsyncClient) -> None:
    before = await click(client, "s", "100")
    after = await click(client, "s", "never seen")
    assert (after["items"], after["clicks"]) == (before["items"], 2)
    assert (await client.get("/sessions/s")).json()["items"] == ["100", "never seen"]


async def test_history_without_a_known_item_gets_popular_items(client: httpx.AsyncClient) -> None:
    answer = await click(client, "s", "never seen")
    assert (answer["source"], answer["degraded"]) == ("popularity", None)
    assert len(items_of(answer)) == 20


async def test_excluded_items_are_not_recommended(client: httpx.AsyncClient) -> None:
    best = items_of(await click(client, "s", "100", k=4))
    answer = await click(client, "t", "100", k=2, exclude=best[:2])
    assert items_of(answer) == best[2:4]
    everything_seen = await click(client, "u", best[0], k=30, exclude_seen=True)
    assert best[0] not in items_of(everything_seen)


async def test_repeated_event_changes_nothing_and_answers_the_same(client: httpx.AsyncClient) -> None:
    first = await click(client, "s", "100", event_id="e1")
    await click(client, "s", "117", event_id="e2")
    assert await click(client, "s", "100", event_id="e1") == first
    assert (await client.get("/sessions/s")).json()["clicks"] == 2


async def test_without_consent_nothing_is_stored(client: httpx.AsyncClient) -> None:
    alone = await click(client, "other", "117")
    await click(client, "s", "100")
    answer = await click(client, "s", "117", consent=False)
    assert (answer["items"], answer["clicks"]) == (alone["items"], 1)
    assert (await client.get("/sessions/s")).json()["items"] == ["100"]


async def test_explain_adds_the_weight_of_each_click_the_model_saw(
    client: httpx.AsyncClient, tiny_recommender: Recommender
) -> None:
    for n in range(9):
        assert "attention" not in await click(client, "s", str(100 + n))
    answer = await click(client, "s", "117", explain=True)
    expected = tiny_recommender.explain([str(100 + n) for n in range(9)] + ["117"])
    assert answer["attention"] == [{"item_id": item, "weight": weight} for item, weight in expected]
    assert len(expected) == tiny_recommender.rules.max_length
    assert (await click(client, "t", "never seen", explain=True))["attention"] == []


async def test_unknown_session_is_an_empty_history(client: httpx.AsyncClient) -> None:
    response = await client.get("/sessions/nobody")
    SessionHistory.model_validate_json(response.content)
    assert response.json() == {"session_id": "nobody", "items": [], "clicks": 0}


async def test_recommendations_without_a_click_leave_the_session_as_it_is(client: httpx.AsyncClient) -> None:
    clicked = await click(client, "s", "100", k=7)
    for _ in range(2):
        assert (await client.get("/sessions/s/recommendations", params={"k": 7})).json() == clicked
    assert (await client.get("/sessions/nobody/recommendations")).json()["source"] == "popularity"


async def test_deleted_session_is_forgotten(client: httpx.AsyncClient) -> None:
    await click(client, "s", "100")
    for _ in range(2):
        response = await client.delete("/sessions/s")
        assert (response.status_code, response.content) == (204, b"")
    assert (await client.get("/sessions/s")).json()["clicks"] == 0


async def test_histories_are_answered_in_order_each_as_if_alone(
    client: httpx.AsyncClient, tiny_recommender: Recommender
) -> None:
    histories = [["100", "117"], [], ["never seen"], ["103"]]
    body = {"histories": histories, "k": 4, "exclude": ["105"], "exclude_seen": True}
    response = await client.post("/recommendations", json=body)
    answers = RecommendationsAnswer.model_validate_json(response.content).recommendations
    expected = tiny_recommender.recommend(histories, 4, exclude=[["105"]] * 4, exclude_seen=True)
    assert [[item.item_id for item in answer.items] for answer in answers] == [one.item_ids for one in expected]
    assert [answer.source for answer in answers] == ["model", "popularity", "popularity", "model"]
    assert [answer.clicks for answer in answers] == [2, 0, 1, 1]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"histories": [[]] * 5}, "body.histories"),
        ({"histories": [["1"], ["1"] * 6]}, "body.histories[1]"),
        ({"histories": [[]], "exclude": ["1"] * 4}, "body.exclude"),
        ({"histories": [[]], "k": 31}, "body.k"),
    ],
)
async def test_bounds_of_the_settings_hold(client: httpx.AsyncClient, body: dict[str, object], place: str) -> None:
    response = await client.post("/recommendations", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["place"] == place


@pytest.mark.parametrize(
    ("method", "path", "body", "place"),
    [
        ("POST", "/sessions/s/click", {"item_id": "1", "k": 31}, "body.k"),
        ("POST", "/sessions/s/click", {"item_id": "1", "k": 0}, "body.k"),
        ("POST", "/sessions/s/click", {"item_id": "1", "exclude": ["1"] * 4}, "body.exclude"),
        ("POST", "/sessions/a%20b/click", {"item_id": "1"}, "path.session_id"),
        ("GET", f"/sessions/{'x' * 10_000}", None, "path.session_id"),
        ("DELETE", "/sessions/.x", None, "path.session_id"),
        ("GET", "/sessions/s/recommendations?k=0", None, "query.k"),
        ("GET", "/sessions/s/recommendations?k=31", None, "query.k"),
        ("GET", "/sessions/s/recommendations?K=5", None, "query.K"),
    ],
)
async def test_wrong_input_is_refused_and_nothing_stored(
    client: httpx.AsyncClient, method: str, path: str, body: object, place: str
) -> None:
    response = await client.request(method, path, json=body) if body else await client.request(method, path)
    assert response.status_code == 422
    assert response.json()["errors"][0]["place"] == place
    assert (await client.get("/sessions/s")).json()["clicks"] == 0


async def test_k_past_a_small_catalogue_names_its_size(tiny_recommender: Recommender, client_of: ClientOf) -> None:
    app = create_app(load_settings(max_k=100, k=50), recommender=tiny_recommender)
    async with client_of(app) as client:
        assert len(items_of(await click(client, "s", "100"))) == 40
        response = await client.post("/sessions/s/click", json={"item_id": "100", "k": 41})
    assert response.status_code == 422
    assert "the catalogue has 40 items" in response.json()["detail"]


async def test_without_the_store_a_click_is_answered_by_itself(
    storeless: httpx.AsyncClient, tiny_recommender: Recommender
) -> None:
    answer = await click(storeless, "s", "100", k=5)
    assert items_of(answer) == tiny_recommender.recommend([["100"]], 5)[0].item_ids
    assert (answer["source"], answer["degraded"], answer["clicks"]) == ("model", "store_unavailable", 1)


async def test_without_the_store_recommendations_are_the_popular_items(storeless: httpx.AsyncClient) -> None:
    answer = (await storeless.get("/sessions/s/recommendations")).json()
    assert (answer["source"], answer["degraded"]) == ("popularity", "store_unavailable")


async def test_without_the_store_histories_are_answered_in_full(storeless: httpx.AsyncClient) -> None:
    [answer] = (await storeless.post("/recommendations", json={"histories": [["100"]]})).json()["recommendations"]
    assert (answer["source"], answer["degraded"]) == ("model", None)


@pytest.mark.parametrize(("method", "path"), [("GET", "/sessions/s"), ("DELETE", "/sessions/s")])
async def test_what_only_the_store_knows_is_503_without_it(
    storeless: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await storeless.request(method, path)
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert (await storeless.get("/livez")).status_code == 200


async def test_without_the_store_it_is_ready_and_says_so(storeless: httpx.AsyncClient) -> None:
    response = await storeless.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "store": "unavailable"})
    assert 'srgnn_store_failures_total{operation="ping"} 1.0' in (await storeless.get("/metrics")).text


async def test_draining_it_is_not_ready_but_answers(tiny_recommender: Recommender, client_of: ClientOf) -> None:
    app = create_app(load_settings(deadline_ms=30_000), recommender=tiny_recommender)
    async with client_of(app) as client:
        app.state.drain.begun = True
        response = await client.get("/readyz")
        assert (response.status_code, response.json()["title"]) == (503, "Draining")
        assert (await client.get("/livez")).status_code == 200
        assert (await click(client, "s", "100"))["source"] == "model"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"artifact": "../tiny"}, "body.artifact"),
        ({"artifact": "/etc"}, "body.artifact"),
        ({"artifact": ".hidden"}, "body.artifact"),
        ({"artifact": 3}, "body.artifact"),
        ({"rollback": "yes"}, "body.rollback"),
        ({"rollbak": True}, "body.rollbak"),
        ({"artifact": "tiny", "rollback": True}, "body.rollback"),
    ],
)
async def test_a_swap_that_is_asked_for_wrongly_is_refused(
    client: httpx.AsyncClient, body: dict[str, object], place: str
) -> None:
    response = await client.post("/admin/model", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["place"] == place


async def test_a_model_that_is_no_artifact_cannot_be_swapped(client: httpx.AsyncClient) -> None:
    response = await client.post("/admin/model", json={})
    assert (response.status_code, response.headers["content-type"]) == (409, "application/problem+json")


async def test_health_readiness_and_metrics(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).json() == {"status": "alive"}
    assert (await client.get("/readyz")).json() == {"status": "ready", "store": "ok"}
    await click(client, "s", "100")
    metrics = await client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'srgnn_answers_total{degraded="no",source="model"} 1.0' in metrics.text
    assert "srgnn_queue_length 0.0" in metrics.text


async def test_examples_of_the_openapi_page_work(client: httpx.AsyncClient) -> None:
    page = (await client.get("/openapi.json")).json()
    tried = 0
    for path, operations in page["paths"].items():
        if path == "/admin/model":  # there is nothing here to swap to
            continue
        operation = operations.get("post", {})
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schema = page["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
            for example in schema["examples"]:
                response = await client.post(path.replace("{session_id}", "s1"), json=example)
                assert response.status_code == 200, response.text
                tried += 1
    assert tried == 5


async def test_every_operation_is_documented_with_its_answer_and_its_problems(
    client: httpx.AsyncClient,
) -> None:
    page = (await client.get("/openapi.json")).json()
    for path, operations in page["paths"].items():
        for operation in operations.values():
            assert operation["description"]
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]
            for content in operation["responses"].get("200", {}).get("content", {}).values():
                schema = page["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
                assert schema["examples"], path


def test_endpoints_are_short() -> None:
    functions = [
        node for node in ast.walk(ast.parse(inspect.getsource(routes))) if isinstance(node, ast.AsyncFunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.body[0].lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > 15} == {}
