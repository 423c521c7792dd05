"""Rows of a request, from a JSON array, NDJSON or CSV, in memory that does not grow with their number.

The body is received first, into a file if it is large: a client that sends slowly keeps no connection to the database
waiting. Then it is parsed and validated row by row, in a thread, so that other requests go on.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import TextIOWrapper
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import Any, Generic, NamedTuple, TextIO, TypeVar, cast

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from plinth.errors import AppError
from plinth.http.faults import MAX_FAULTS, describe
from plinth.http.row_formats import PARSERS, Parser

ModelT = TypeVar("ModelT", bound=BaseModel)

_KEPT_IN_MEMORY = 1_048_576
_BATCH = 200
_LONGEST_POINTER = 1000
_NOT_UTF8 = "The request body is not valid UTF-8."


class Row(NamedTuple, Generic[ModelT]):
    """One row: its value, or else its faults, each with a pointer and a sentence."""

    number: int
    """Of the line where it begins, from 1; in a JSON array the index, from 0."""
    value: ModelT | None
    faults: list[dict[str, str]]


class Rows:
    """The rows of a request body, as `Rows.received` opens them."""

    def __init__(self, text: TextIO, parse: Parser) -> None:
        self._text = text
        self._parse = parse

    @classmethod
    @asynccontextmanager
    async def received(cls, request: Request) -> AsyncIterator["Rows"]:
        """Receive the body, and keep it for the length of the block. Raises HTTPException 415."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in PARSERS:
            types = ", ".join(PARSERS)
            raise HTTPException(415, f"Send the rows as one of {types}.", {"Accept": types})
        with SpooledTemporaryFile(_KEPT_IN_MEMORY) as file:
            async for part in request.stream():
                file.write(part)
            file.seek(0)
            # A file of bytes in all but its declaration. Text from spreadsheets begins with a byte order mark.
            yield cls(TextIOWrapper(cast(Any, file), "utf-8-sig", newline=""), PARSERS[kind])

    async def read(self, model: type[ModelT], most: int) -> AsyncIterator[Row[ModelT]]:
        """Validate each row as if it were the body of a request.

        Raises AppError for a body that cannot be read to its end, and for more than `most` rows.
        """
        rows = _validated(self._parse(self._text, model), model, most)
        while batch := await to_thread.run_sync(_next, rows):
            for row in batch:
                yield row


def _next(rows: Iterator[Row[ModelT]]) -> list[Row[ModelT]]:
    try:
        return [*islice(rows, _BATCH)]
    except UnicodeDecodeError:
        raise AppError(_NOT_UTF8) from None


def _validated(parsed: Iterator[tuple[int, Any]], model: type[ModelT], most: int) -> Iterator[Row[ModelT]]:
    for rows, (number, value) in enumerate(parsed):
        if rows == most:
            raise AppError(f"There are more than {most} rows. Send them in several requests.")
        if isinstance(value, ValueError):
            yield Row(number, None, [_fault(number, str(value))])
            continue
        try:
            yield Row(number, model.model_validate(value), [])
        except ValidationError as error:
            found = error.errors(include_url=False)[:MAX_FAULTS]
            described = [describe({**fault, "loc": ("body", *fault["loc"])}, value) for fault in found]
            yield Row(number, None, [_fault(number, fault["detail"], fault["pointer"]) for fault in described])


def _fault(number: int, detail: str, inner: str = "#") -> dict[str, str]:
    # The name of an unknown field may be as long as a row. Only so many faults are kept, and none is longer than this.
    place = inner[1:] if len(inner) <= _LONGEST_POINTER else ""
    return {"location": "body", "pointer": f"#/{number}{place}", "detail": detail}
