import json

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import Response
from hypothesis import given
from hypothesis import strategies as st

from service.errors import PROBLEM_JSON, Fault, RequestRefused, add_error_handlers, problem, shown
from service.schemas import ClickRequest, Problem, RecommendationsRequest
from srgnn.errors import InputError, StoreUnavailable


def body_of(response: Response) -> dict[str, object]:
    content: dict[str, object] = json.loads(bytes(response.body))
    return content


def test_problem_is_rfc_9457() -> None:
    response = problem(503, "Try later.", title="Busy", headers={"Retry-After": "1"})
    assert response.media_type == PROBLEM_JSON
    assert response.headers["retry-after"] == "1"
    assert body_of(response) == {
        "type": "about:blank",
        "title": "Busy",
        "status": 503,
        "detail": "Try later.",
    }


def test_problem_lists_every_fault() -> None:
    fault = Fault("body.k", "0", "too small", "send 1 or more")
    assert body_of(problem(422, "x", faults=[fault]))["errors"] == [fault._asdict()]


def test_refusal_is_one_sentence_with_place_value_and_remedy() -> None:
    refused = RequestRefused(Fault("body.k", "0", "too small", "send 1 or more"))
    assert isinstance(refused, InputError)
    assert str(refused) == "body.k is 0: too small; send 1 or more."


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (True, "true"),
        (None, "null"),
        ("a\n", '"a\\n"'),
        ("x" * 100, '"' + "x" * 64 + '…" (100 characters)'),
        ([1, 2], "a list of 2"),
        ({"a": 1}, "an object of 1 fields"),
        (10**100, "1" + "0" * 63 + "…"),
        (b"raw", "of type bytes"),
    ],
)
def test_values_are_shown_short(value: object, expected: str) -> None:
    assert shown(value) == expected


@given(st.text())
def test_any_text_can_be_sent_back(text: str) -> None:
    response = problem(422, text, faults=[Fault(text, shown(text), text, text)])
    assert Problem.model_validate_json(bytes(response.body)).status == 422


def test_half_a_surrogate_pair_can_be_sent_back() -> None:
    assert "\\ud800" in str(body_of(problem(422, "\ud800"))["detail"])


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    add_error_handlers(app)

    @app.post("/click")
    async def click(request: ClickRequest) -> None: ...

    @app.post("/recommendations")
    async def recommendations(request: RecommendationsRequest) -> None: ...

    @app.get("/click")
    async def get_click() -> None: ...

    @app.get("/fails/{kind}")
    async def fails(kind: str) -> None:
        raise {
            "store": StoreUnavailable("redis://internal:6379 is down"),
            "refused": RequestRefused(Fault("query.k", "9", "too large", "send less")),
            "teapot": HTTPException(418, "no coffee"),
        }[kind]

    return app


async def ask(app: FastAPI, method: str, path: str, **kwargs: object) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        response = await client.request(method, path, **kwargs)  # type: ignore[arg-type]
    assert response.headers["content-type"] == PROBLEM_JSON
    Problem.model_validate(response.json())
    return response


WRONG_BODIES = [
    # body, status, place, words of the value, words of the remedy
    (b"hello", 400, "body", "", "send one JSON object"),
    (b'{"item_id": "\xff"}', 400, "body", "", "send one JSON object"),
    (b"[" * 9000, 400, "body", "", "send one JSON object"),
    (b'{"item_id": "1", "k": ' + b"9" * 5000 + b"}", 400, "body", "", "send one JSON object"),
    (b"", 422, "body", "", "send a JSON object"),
    (b"null", 422, "body", "null", "send a JSON object"),
    (b"[1]", 422, "body", "a list of 1", "send a JSON object"),
    (b"{}", 422, "body.item_id", "", "send this field"),
    (b'{"item_id": 42}', 422, "body.item_id", "42", "in quotes"),
    (b'{"item_id": ""}', 422, "body.item_id", '""', "1 to 256 characters"),
    (
        b'{"item_id": "%s"}' % (b"x" * 10_000),
        422,
        "body.item_id",
        "(10000 characters)",
        "1 to 256 characters",
    ),
    (b'{"item_id": "a\\u0000"}', 422, "body.item_id", "\\u0000", "without control characters"),
    (b'{"item_id": "\\ud800"}', 422, "body.item_id", "\\ud800", "1 to 256 characters"),
    (b'{"item_id": "1", "\\ud800": 1}', 422, "body", "\\ud800", "send a JSON object"),
    (b'{"item_id": "1", "k": 0}', 422, "body.k", "0", "1 or more"),
    (b'{"item_id": "1", "k": "5"}', 422, "body.k", '"5"', "whole number"),
    (b'{"item_id": "1", "k": NaN}', 422, "body.k", "NaN", "whole number"),
    (b'{"item_id": "1", "exclude": "2"}', 422, "body.exclude", '"2"', "send a list of strings"),
    (b'{"item_id": "1", "exclude": ["2", 3]}', 422, "body.exclude[1]", "3", "in quotes"),
    (b'{"item_id": "1", "consent": "no"}', 422, "body.consent", '"no"', "true or false"),
    (b'{"item_id": "1", "event_id": "a b"}', 422, "body.event_id", '"a b"', "without spaces"),
    (b'{"item_id": "1", "exclud": []}', 422, "body.exclud", "a list of 0", "did you mean 'exclude'?"),
    (b'{"item_id": "1", "zzz": 1}', 422, "body.zzz", "1", "leave it out"),
]


@pytest.mark.parametrize(("body", "status", "place", "value", "remedy"), WRONG_BODIES)
async def test_wrong_body_names_place_value_and_remedy(
    app: FastAPI, body: bytes, status: int, place: str, value: str, remedy: str
) -> None:
    response = await ask(app, "POST", "/click", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    [fault] = response.json()["errors"]
    assert fault["place"] == place
    assert value in fault["value"]
    assert remedy in fault["remedy"]
    assert place in response.json()["detail"]
    assert remedy in response.json()["detail"]
    assert len(response.content) < 2000


async def test_empty_list_of_histories_is_refused(app: FastAPI) -> None:
    response = await ask(app, "POST", "/recommendations", json={"histories": []})
    assert "send at least one history" in response.json()["detail"]


async def test_place_in_nested_lists_is_exact(app: FastAPI) -> None:
    response = await ask(app, "POST", "/recommendations", json={"histories": [["1"], ["2", 3]]})
    assert response.json()["errors"][0]["place"] == "body.histories[1][1]"


async def test_body_that_is_not_declared_json_is_415(app: FastAPI) -> None:
    for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}):
        response = await ask(app, "POST", "/click", content=b'{"item_id": "1"}', headers=headers)
        assert response.status_code == 415
        assert "Content-Type: application/json" in response.json()["detail"]


async def test_a_million_wrong_values_make_one_error(app: FastAPI) -> None:
    response = await ask(app, "POST", "/recommendations", json={"histories": [[1] * 1_000_000]})
    assert len(response.json()["errors"]) == 1


async def test_many_wrong_fields_are_cut_at_ten(app: FastAPI) -> None:
    response = await ask(app, "POST", "/click", json={"item_id": "1"} | {f"field{n}": n for n in range(50)})
    assert len(response.json()["errors"]) == 10


async def test_unknown_path_is_a_problem(app: FastAPI) -> None:
    response = await ask(app, "GET", "/nope")
    assert response.status_code == 404
    assert '"/nope"' in response.json()["detail"]


async def test_wrong_method_names_all_right_ones(app: FastAPI) -> None:
    response = await ask(app, "PUT", "/click")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST"
    assert "GET, POST" in response.json()["detail"]


async def test_store_failure_is_503_without_internals(app: FastAPI) -> None:
    response = await ask(app, "GET", "/fails/store")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "internal" not in response.text


async def test_refusal_is_422(app: FastAPI) -> None:
    response = await ask(app, "GET", "/fails/refused")
    assert response.status_code == 422
    assert response.json()["errors"][0]["place"] == "query.k"


async def test_other_http_errors_keep_their_status_and_detail(app: FastAPI) -> None:
    response = await ask(app, "GET", "/fails/teapot")
    assert (response.status_code, response.json()["detail"]) == (418, "no coffee")
