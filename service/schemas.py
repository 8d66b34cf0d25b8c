"""What goes in and out over HTTP: where requests are validated, and the source of the OpenAPI page."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field, StringConstraints
from pydantic_core import PydanticCustomError

from srgnn.directory import NAME_PATTERN
from srgnn.errors import InputError
from srgnn.vocabulary import MAX_ITEM_ID_LENGTH, check_item_id

SESSION_ID_PATTERN = r"^[A-Za-z0-9\-_~!$&'()*+,;=:@][A-Za-z0-9\-._~!$&'()*+,;=:@]{0,127}$"
"""1-128 of the characters that a URL's path segment holds unescaped (RFC 3986), not beginning with a dot."""

EVENT_ID_PATTERN = r"^[\x21-\x7e]{1,128}$"

ITEM_ID_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
"""Says to clients what :func:`srgnn.vocabulary.check_item_id` checks."""


def _legal_item_id(item: str) -> str:
    try:
        check_item_id(item)
    except InputError as error:
        raise PydanticCustomError("item_id_invalid", "{cause}", {"cause": str(error)}) from error
    return item


ItemId = Annotated[
    str,
    # The length is checked first and by pydantic itself, so that a huge id is refused cheaply.
    StringConstraints(min_length=1, max_length=MAX_ITEM_ID_LENGTH),
    AfterValidator(_legal_item_id),
    Field(json_schema_extra={"pattern": ITEM_ID_PATTERN}),
]
ItemIds = Annotated[list[ItemId], FailFast()]
"""Stops at its first error: a body of a million wrong ids must not make a million errors."""

Source = Literal["model", "transitions", "popularity"]


def _whole_number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


K = Annotated[int, Field(ge=1), BeforeValidator(_whole_number)]
"""JSON has one kind of number, so 5.0 is 5 (as it is to JSON Schema); "5" and true are not."""

Degraded = Literal["store_unavailable", "queue_full", "deadline", "model_error"]


def _no_items(description: str) -> Any:
    """A list that is empty where it is not sent: made anew, since copying a default takes as long as all the rest."""
    return Field(default_factory=list, json_schema_extra={"default": []}, description=description)


class _Request(BaseModel):
    # A message may end in the log, and what was sent must not.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class ClickRequest(_Request):
    """One click."""

    item_id: ItemId = Field(description="The item clicked. One the model does not know is kept and skipped.")
    event_id: Annotated[str, StringConstraints(pattern=EVENT_ID_PATTERN)] | None = Field(
        None,
        description="Makes a repeat harmless: the same event_id again changes nothing and gives the same "
        "answer. Remembered for the session's last 64 clicks.",
    )
    k: K | None = Field(None, description="How many items to recommend.")
    exclude: ItemIds = _no_items("Items that must not be recommended.")
    exclude_seen: bool = Field(False, description="Whether items of the session are left out as well.")
    history: ItemIds = _no_items(
        "The session's clicks before this one as the caller knows them, oldest first. Used only where the "
        "stored session cannot be: the store does not answer, or there is no consent."
    )
    consent: bool = Field(True, description="false stores nothing: the answer rests on history and this click alone.")
    explain: bool = Field(False, description="Adds the attention weight of each click that the model saw.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"item_id": "42"},
                {"item_id": "42", "event_id": "01JD2Q7", "k": 5, "exclude": ["17"], "exclude_seen": True},
                {"item_id": "42", "k": 3, "consent": False, "explain": True},
            ]
        }
    )


class RecommendationsQuery(_Request):
    """The query of GET /sessions/{session_id}/recommendations."""

    # Not strict: a query string holds only text.
    model_config = ConfigDict(strict=False)

    k: int | None = Field(None, ge=1, description="How many items to recommend.", examples=[5])


class RecommendationsRequest(_Request):
    """Histories to recommend for; nothing is stored."""

    histories: Annotated[list[ItemIds], FailFast()] = Field(
        min_length=1, description="Item ids of each history, oldest click first; one may be empty."
    )
    k: K | None = Field(None, description="How many items to recommend for each.")
    exclude: ItemIds = _no_items("Items that must not be recommended to any.")
    exclude_seen: bool = Field(False, description="Whether a history's own items are left out as well.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"histories": [["42", "17"], []]},
                {"histories": [["42", "17"]], "k": 5, "exclude": ["3"], "exclude_seen": True},
            ]
        }
    )


class SwapRequest(_Request):
    """The model to swap to: one by name, the one before, or else what LATEST names."""

    artifact: Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN}$")] | None = Field(
        None, description="Name of a directory beside LATEST."
    )
    rollback: bool = Field(False, description="true for the model before this one; again, and it is this one again.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{}, {"artifact": "diginetica-20261122-3f9c1a2b"}, {"rollback": True}],
            "not": {
                "required": ["artifact", "rollback"],
                "properties": {"artifact": {"type": "string"}, "rollback": {"const": True}},
            },
        }
    )


class SwapAnswer(BaseModel):
    """What answered and what answers now; the same where there was nothing to do."""

    old: str
    new: str

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"old": "diginetica-20261122-3f9c1a2b", "new": "diginetica-20261129-81b0c9d4"}]}
    )


class ScoredItem(BaseModel):
    """A recommended item; only scores of one answer compare."""

    item_id: str
    score: float


class ClickWeight(BaseModel):
    """How much a click weighs in the model's summary of the session; weights need not sum to one."""

    item_id: str
    weight: float


class Answer(BaseModel):
    """The next items of one history."""

    items: list[ScoredItem] = Field(description="Best first; equal scores in catalogue order.")
    source: Source = Field(description="What answered.")
    degraded: Degraded | None = Field(description="Why this is not the best answer the service can give, or null.")
    clicks: int = Field(description="Clicks of the session or history that was answered for.")
    model: str = Field(description="The artifact that answered.")


ANSWER_EXAMPLE: dict[str, Any] = {
    "items": [{"item_id": "17", "score": 9.25}, {"item_id": "3", "score": 8.5}],
    "source": "model",
    "degraded": None,
    "clicks": 2,
    "model": "diginetica-20261122-3f9c1a2b",
}


class SessionAnswer(Answer):
    """The next items of a session."""

    session_id: str
    attention: list[ClickWeight] | None = Field(
        None,
        description="With explain: the clicks the model saw, oldest first; null where it did not answer.",
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"session_id": "s1", **ANSWER_EXAMPLE}]})


class RecommendationsAnswer(BaseModel):
    """One answer for each history, in their order."""

    recommendations: list[Answer]

    model_config = ConfigDict(json_schema_extra={"examples": [{"recommendations": [ANSWER_EXAMPLE]}]})


class SessionHistory(BaseModel):
    """What is kept of a session; an unknown or expired one is empty."""

    session_id: str
    items: list[str] = Field(description="The last clicks, oldest first.")
    clicks: int = Field(description="Clicks since the session began, including those no longer kept.")

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"session_id": "s1", "items": ["42", "17"], "clicks": 2}]}
    )


class ModelInfo(BaseModel):
    """The model that answers."""

    model: str = Field(description="Name of the artifact.")
    items: int = Field(description="Items in the catalogue.")
    max_length: int = Field(description="Clicks of a session that the model looks at, the last ones.")
    search: str = Field(description="How the catalogue is searched on this processor: int8, int8-compiled, float32...")
    previous: str | None = Field(description="The model before this one, to which a rollback leads.")
    manifest: dict[str, Any] | None = Field(description="The artifact's manifest, where it was loaded from one.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "diginetica-20261122-3f9c1a2b",
                    "items": 43097,
                    "max_length": 50,
                    "search": "int8",
                    "previous": None,
                    "manifest": {"version": 1},
                }
            ]
        }
    )


class Liveness(BaseModel):
    """The process is alive."""

    status: Literal["alive"]

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "alive"}]})


class Readiness(BaseModel):
    """Requests may be sent here. Without the store they are answered from what they carry, and say so."""

    status: Literal["ready"]
    store: Literal["ok", "unavailable"]

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready", "store": "ok"}]})


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What was found, where, and what to do, in one sentence.")
    errors: list[dict[Literal["place", "value", "problem", "remedy"], str]] = Field(
        [], description="Every value at fault, at most the first ten."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Invalid request",
                    "status": 422,
                    "detail": "body.k is 0: input should be greater than or equal to 1; "
                    "send a whole number, 1 or more.",
                    "errors": [
                        {
                            "place": "body.k",
                            "value": "0",
                            "problem": "input should be greater than or equal to 1",
                            "remedy": "send a whole number, 1 or more",
                        }
                    ],
                }
            ]
        }
    )
