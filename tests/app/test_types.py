"""The types of requests take what the document says of them and nothing else: each type × each kind of JSON value."""

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any

import jsonschema_rs
import pytest
from fastapi import APIRouter, FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import MISSING, BaseModel, Field, ValidationError, create_model

from app.schemas.base import MOST_FAULTS, PatchSchema, RequestSchema
from app.schemas.types import (
    Amount,
    Choice,
    Count,
    Date,
    DecimalNumber,
    Email,
    Id,
    Instant,
    Integer,
    Json,
    Text,
    Uuid,
    VisibleText,
)
from plinth.http import FastRoute, exception_handlers


class Status(StrEnum):
    DRAFT = "draft"
    SENT = "sent"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(Enum):
    ONE = 1
    TEN = "10"


class Rate(Enum):
    ONE = 1.0
    HALF_MORE = 1.5


class Special(Enum):
    AMOUNT = Decimal("5.5")
    DAY = date(2026, 11, 28)


TYPES: dict[str, Any] = {
    "Text": Text,
    "VisibleText": VisibleText,
    "Email": Email,
    "Amount": Amount,
    "Id": Id,
    "Count": Count,
    "Integer": Integer,
    "DecimalNumber": DecimalNumber,
    "Json": Json,
    "Date": Date,
    "Instant": Instant,
    "Uuid": Uuid,
    "Choice of text": Choice[Status],
    "Choice of numbers": Choice[Level],
    "Choice of both": Choice[Mixed],
    "Choice of fractions": Choice[Rate],
    "Choice of what JSON has as text": Choice[Special],
    # As a field narrows them.
    "a short text": Annotated[Text, Field(min_length=1, max_length=5)],
    "a text with a pattern": Annotated[Text, Field(pattern="^[A-Z]{2}")],
    "a visible text with a pattern": Annotated[VisibleText, Field(max_length=9, pattern="^[ A-Z]*$")],
    "a pattern twice": Annotated[Annotated[VisibleText, Field(pattern="A")], Field(pattern="B")],
    "an address of ours": Annotated[Email, Field(pattern="@example[.]com$", max_length=20)],
    "an amount over 0": Annotated[Amount, Field(gt=0)],
    "a small id": Annotated[Id, Field(le=9)],
    "a count over 2, of threes": Annotated[Count, Field(gt=2, multiple_of=3)],
    "an id that may be null": Id | None,
    "a text with a pattern or null": Annotated[Text, Field(pattern="^[A-Z]")] | None,
    "dates": Annotated[list[Date], Field(max_length=2)],
    "texts by name": dict[str, Annotated[Text, Field(pattern="^[A-Z]")]],
}
TEXTS = [
    *("", " ", "a", "A", "AB", "B", "ABCDEFGHIJ", "AB\x00", "\x00", "\u200b", "é", "\U0001f4bb", "AB\n", " A", "BA"),
    *(
        "ada@example.com",
        "ada@localhost",
        "@example.com",
        "ada@",
        "a b@example.com",
        "ada@example.com\n",
        "ada@ex..com",
    ),
    *("ada@-x.com", "x" * 250 + "@example.com", "a.long.name.of.a.mailbox@example.com"),
    *("0", "0.00", "5", "5.5", "5.555", "-1", "1e3", "NaN", "Infinity", "٥", "00000000001", "9999999999.99", " 5"),
    *(
        "2026-11-28",
        "2026-02-30",
        "2024-02-29",
        "2026-1-1",
        "20261128",
        "2026-W48-6",
        "2026-11-28T00:00:00",
        "1767225600",
    ),
    *("2026-11-28T09:30:00Z", "2026-11-28t09:30:00z", "2026-11-28T09:30:00.1234567+05:30", "2026-11-28 09:30:00Z"),
    *("2026-11-28T09:30Z", "2026-11-28T24:00:00Z", "2026-11-28T09:30:00+24:00", "2026-11-28T09:30:00"),
    *(
        "2c1e6f0a-5d43-4b1e-9c57-3f8a6d2b7e10",
        "2C1E6F0A-5D43-4B1E-9C57-3F8A6D2B7E10",
        "2c1e6f0a5d434b1e9c573f8a6d2b7e10",
    ),
    *("{2c1e6f0a-5d43-4b1e-9c57-3f8a6d2b7e10}", "urn:uuid:2c1e6f0a-5d43-4b1e-9c57-3f8a6d2b7e10"),
    *("draft", "DRAFT", "Status.DRAFT", "1", "10", "2"),
]
NUMBERS = [0, 1, 2, 3, 6, 9, 10, -1, 1.0, 1.5, 6.0, 2**31 - 1, 2**31, 2**53 - 1, 2**53, 2**64, 10**400, 1e300, -0.0]
VALUES: list[Any] = [
    *(None, True, False, *NUMBERS, *TEXTS),
    *([], ["a"], ["2026-11-28"], ["2026-11-28", 1], ["2026-11-28"] * 3, {}, {"a": "A"}, {"a": "a"}, {"a": 1}),
    *({"a": {"b": [1.5, None, True, {}]}}, {"a\x00": 1}, {"a": ["\x00"]}, {"a": {"b": {"\x00": 1}}}),
]


def model(kind: Any) -> type[BaseModel]:
    return create_model("Body", __base__=RequestSchema, value=(kind, ...))


def service(body: Any) -> FastAPI:
    router = APIRouter(route_class=FastRoute)

    @router.post("/")
    async def take(data: body) -> None:
        pass

    app = FastAPI(exception_handlers=exception_handlers)
    app.include_router(router)
    return app


@pytest.mark.parametrize("name", TYPES)
async def test_a_type_takes_what_the_document_says(name: str) -> None:
    app = service(model(TYPES[name]))
    components = app.openapi()["components"]
    schema = {"$ref": "#/components/schemas/Body", "components": components}
    document = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    wrong: dict[str, tuple[bool, int]] = {}
    taken = 0
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        for value in VALUES:
            answer = await client.post("/", json={"value": value})
            valid = document.is_valid({"value": value})
            taken += valid
            if answer.status_code != (200 if valid else 422):
                wrong[json.dumps(value)[:99]] = valid, answer.status_code
            elif not valid:
                [*faults] = answer.json()["errors"]
                assert all(fault["pointer"].startswith("#/value") and fault["detail"] for fault in faults)
                python = r"datetime\.|Decimal|\(|<" + r"|items" * isinstance(value, str)
                assert [fault["detail"] for fault in faults if re.search(python, fault["detail"])] == []
    assert not wrong
    assert taken, "no value is taken: add one"


@pytest.mark.parametrize(
    ("kind", "value", "detail"),
    [
        (Annotated[Date, Field(ge=date(2020, 1, 2))], "2019-01-01", "greater than or equal to 2020-01-02"),
        (
            Annotated[Instant, Field(lt=datetime(2020, 1, 2, tzinfo=UTC))],
            "2021-01-01T00:00:00Z",
            "2020-01-02T00:00:00Z",
        ),
        (
            Annotated[Instant, Field(lt=datetime(2020, 1, 2, 3, 4, 5, 6, UTC))],
            "2021-01-01T00:00:00Z",
            "less than 2020-01-02T03:04:05.000006Z",
        ),
        (Annotated[Amount, Field(le=Decimal("5.00"))], "6.00", "less than or equal to 5.00"),
        (Annotated[Text, Field(max_length=3)], "abcd", "Text should have at most 3 characters"),
        (Annotated[VisibleText, Field(min_length=3)], "ab", "Text should have at least 3 characters"),
    ],
)
async def test_a_bound_is_named_as_json_has_it(kind: Any, value: str, detail: str) -> None:
    async with AsyncClient(transport=ASGITransport(service(model(kind))), base_url="http://test") as client:
        [fault] = (await client.post("/", json={"value": value})).json()["errors"]
    assert fault["detail"].endswith(detail)


def test_a_bound_that_json_schema_does_not_have_is_shown_in_its_own_words() -> None:
    first = Annotated[Instant, Field(ge=datetime(2026, 1, 1, tzinfo=UTC))]
    shown = model(first).model_json_schema()["properties"]["value"]
    assert shown.items() >= {"format": "date-time", "formatMinimum": "2026-01-01T00:00:00Z"}.items()


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "2026-12-31T23:59:60Z"])
async def test_an_instant_that_python_cannot_hold_is_refused(text: str) -> None:
    async with AsyncClient(transport=ASGITransport(service(model(Instant))), base_url="http://test") as client:
        assert (await client.post("/", json={"value": text})).status_code == 422


def test_values_are_pythons() -> None:
    kinds = {"day": Date, "at": Instant, "status": Choice[Status], "price": Amount}
    Fields = create_model("Fields", __base__=RequestSchema, **{name: (kind, ...) for name, kind in kinds.items()})  # type: ignore[call-overload]  # noqa: N806
    sent = {"day": "2026-11-28", "at": "2026-11-28T01:00:00+02:00", "status": "draft", "price": "5"}
    taken = Fields.model_validate(sent).changes()
    at = datetime(2026, 11, 27, 23, tzinfo=UTC)
    assert taken == {"day": date(2026, 11, 28), "at": at, "status": Status.DRAFT, "price": Decimal("5.00")}
    assert taken["at"].tzinfo is UTC
    assert isinstance(taken["status"], Status)
    assert Fields.model_validate(taken | {"price": "5"}).changes() == taken


@pytest.mark.parametrize("schema", [RequestSchema, PatchSchema])
def test_many_faults_are_counted_and_not_described(schema: type[BaseModel]) -> None:
    Part = create_model("Part", __base__=schema, name=(str, MISSING))  # noqa: N806
    Fields = create_model("Fields", __base__=schema, name=(str, MISSING), parts=(list[Part], []))  # noqa: N806

    def faults(body: dict[str, Any]) -> list[Any]:
        with pytest.raises(ValidationError) as raised:
            Fields.model_validate(body)
        return raised.value.errors()

    some = {f"no{number}": number for number in range(MOST_FAULTS)}
    assert [fault["loc"] for fault in faults(some)] == [(name,) for name in some]
    many = {f"no{number}": number for number in range(24_000)}
    for body in (many, {"parts": [many]}, {"parts": [{"no": 1}] * 2000}):
        [fault] = faults(body)
        assert fault["msg"].startswith("Input has ")


def test_a_patch_may_leave_them_out() -> None:
    class Change(PatchSchema):
        day: Date | MISSING = MISSING
        status: Choice[Status] | MISSING = MISSING

    assert Change.model_validate({"status": "sent"}).changes() == {"status": Status.SENT}
