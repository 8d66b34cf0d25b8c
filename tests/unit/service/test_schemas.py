import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from service import schemas
from service.schemas import (
    EVENT_ID_PATTERN,
    ITEM_ID_PATTERN,
    SESSION_ID_PATTERN,
    ClickRequest,
    RecommendationsQuery,
    RecommendationsRequest,
)
from srgnn.errors import InputError
from srgnn.vocabulary import check_item_id

WITH_EXAMPLES = [
    model
    for model in vars(schemas).values()
    if isinstance(model, type)
    and issubclass(model, BaseModel)
    and model is not BaseModel
    and "examples" in model.model_json_schema()
]


@pytest.mark.parametrize("model", WITH_EXAMPLES, ids=lambda model: model.__name__)
def test_examples_are_valid(model: type[BaseModel]) -> None:
    for example in model.model_json_schema()["examples"]:
        assert set(example) <= set(model.model_fields)
        model.model_validate(example)


def test_every_body_has_an_example() -> None:
    names = {model.__name__ for model in WITH_EXAMPLES}
    assert names >= {"ClickRequest", "RecommendationsRequest", "SessionAnswer", "RecommendationsAnswer"}
    assert names >= {"SessionHistory", "ModelInfo", "Liveness", "Readiness", "Problem", "SwapRequest", "SwapAnswer"}


@given(st.text(max_size=300))
def test_item_ids_are_legal_exactly_where_the_vocabulary_says_so(item: str) -> None:
    try:
        check_item_id(item)
    except InputError:
        with pytest.raises(ValidationError):
            ClickRequest(item_id=item)
    else:
        assert ClickRequest(item_id=item).item_id == item


def test_the_documented_pattern_of_an_item_id_is_what_the_vocabulary_checks() -> None:
    def is_legal(item: str) -> bool:
        try:
            check_item_id(item)
        except InputError:
            return False
        return True

    characters = (chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000)  # JSON text holds no surrogates
    for character in characters:
        assert bool(re.search(ITEM_ID_PATTERN, f"a{character}b")) == is_legal(f"a{character}b")


@pytest.mark.parametrize("model", [ClickRequest, RecommendationsRequest, RecommendationsQuery])
def test_unknown_fields_are_refused(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        model.model_validate({"item_id": "1", "histories": [[]], "other": 1})


@pytest.mark.parametrize("value", ["5", 5.5, True, 0, -1, float("inf")])
def test_k_is_a_whole_number_of_one_or_more(value: object) -> None:
    with pytest.raises(ValidationError):
        ClickRequest.model_validate({"item_id": "1", "k": value})


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert repr(ClickRequest.model_validate_json('{"item_id": "1", "k": 5.0}').k) == "5"


def test_k_in_a_query_is_text() -> None:
    assert RecommendationsQuery.model_validate({"k": "5"}).k == 5


@pytest.mark.parametrize("session_id", ["a", "x" * 128, "-._~!$&'()*+,;=:@", "user:1@shop", "MTIz+w=="])
def test_session_ids_that_are_legal(session_id: str) -> None:
    assert re.fullmatch(SESSION_ID_PATTERN, session_id)


@pytest.mark.parametrize("session_id", ["", ".", "..", ".a", "a b", "a/b", "ü", "x" * 129, "a\n", "{a}", "%41"])
def test_session_ids_that_are_not(session_id: str) -> None:
    assert not re.fullmatch(SESSION_ID_PATTERN, session_id)


@pytest.mark.parametrize("event_id", ["", "a b", "ü", "a\n", "x" * 129])
def test_event_ids_hold_no_spaces_and_no_line_breaks(event_id: str) -> None:
    assert not re.fullmatch(EVENT_ID_PATTERN, event_id)
    with pytest.raises(ValidationError):
        ClickRequest(item_id="1", event_id=event_id)
