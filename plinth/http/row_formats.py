"""The formats of `Rows`: JSON, NDJSON and CSV, each read from a text row by row.

Python's parser reads a JSON array as a whole only, so its elements are decoded one by one from a part of the text.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Self, TextIO, TypeAlias

from pydantic import BaseModel

from plinth.errors import AppError

Parser: TypeAlias = Callable[[TextIO, type[BaseModel]], Iterator[tuple[int, Any]]]
"""Yields the number of each row, and what it is in JSON, or a ValueError with a sentence about why it is none."""

_LONGEST_ROW = 65_536
_VISIBLE = re.compile(r"[^ \t\r\n]")
_DECODER = json.JSONDecoder()
_NOTHING = object()


def _array(text: TextIO, _model: type[BaseModel]) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON array, one after another from a buffer that is a little longer than the longest."""
    buffer = _Buffer(text)
    if buffer.next() != "[":
        raise AppError("The rows in JSON must be an array.")
    buffer.skip()
    for index in count() if buffer.next() != "]" else ():
        yield index, buffer.element(index)
        if (after := buffer.next()) not in {",", "]"}:
            raise AppError(f"The request body is not valid JSON: there is no comma after element {index}.")
        if after == "]":
            break
        buffer.skip()
    buffer.skip()
    if buffer.next():
        raise AppError("The request body is not valid JSON: something follows the array.")


class _Buffer:
    def __init__(self, text: TextIO) -> None:
        self._text, self._part, self._at = text, "", 0

    def next(self) -> str:
        """The next character that is no white space, which stays in the buffer; empty at the end."""
        while True:
            if found := _VISIBLE.search(self._part, self._at):
                self._at = found.start()
                return found[0]
            self._at = len(self._part)
            if not self._fill():
                return ""

    def skip(self) -> None:
        self._at += 1

    def element(self, index: int) -> Any:
        self.next()
        if len(self._part) - self._at <= _LONGEST_ROW:  # afterwards the whole of it is here, or it is too long
            self._fill()
        try:
            value, end = _DECODER.raw_decode(self._part, self._at)
        except (ValueError, RecursionError):  # also a number that is too long
            end = len(self._part)
            value = _NOTHING
        if value is _NOTHING or end - self._at > _LONGEST_ROW:
            raise AppError(f"Element {index} is not valid JSON of at most {_LONGEST_ROW} characters.")
        self._at = end
        return value

    def _fill(self) -> bool:
        """Read another part; False at the end."""
        part = self._text.read(4 * _LONGEST_ROW)
        self._part, self._at = self._part[self._at :] + part, 0
        return part != ""


class _Lines:
    """The lines of a text, of which no row has more than so many characters. `row` is the line where it begins."""

    def __init__(self, text: TextIO) -> None:
        self._text, self._number, self._size, self.row = text, 0, 0, 1

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_LONGEST_ROW + 1)
        self._number += 1
        self._size += len(line)
        if self._size > _LONGEST_ROW:
            raise AppError(f"The row in line {self.row} is longer than {_LONGEST_ROW} characters.")
        if not line:
            raise StopIteration
        return line

    def begin_row(self) -> None:
        self.row, self._size = self._number + 1, 0


def _lines(text: TextIO, _model: type[BaseModel]) -> Iterator[tuple[int, Any]]:
    lines = _Lines(text)
    for line in lines:
        if line.strip():
            try:
                yield lines.row, json.loads(line)
            except (ValueError, RecursionError):  # also a number that is too long
                yield lines.row, ValueError("The line is not valid JSON.")
        lines.begin_row()


def _table(text: TextIO, model: type[BaseModel]) -> Iterator[tuple[int, Any]]:
    """Rows of CSV. A cell is text; where the model has a number, say, it is read as JSON. An empty cell is left out."""
    shown = model.model_json_schema()
    properties = shown["properties"]
    as_json = {name for name, schema in properties.items() if schema.get("type") != "string"}
    lines = _Lines(text)
    columns = list[str]()
    for cells in _records(lines):
        if not columns:
            columns = cells
            if len({*columns}) < len(columns):
                raise AppError("The first line of CSV must name the columns, each once.")
            if shown.get("additionalProperties") is False and not properties.keys() >= {*columns}:
                raise AppError(f"The first line of CSV may name these columns only: {', '.join(properties)}.")
        elif len(cells) > len(columns):
            yield lines.row, ValueError("The row has more cells than there are columns.")
        elif cells:
            named = zip(columns, cells, strict=False)
            yield lines.row, {name: _cell(cell) if name in as_json else cell for name, cell in named if cell}
        lines.begin_row()


def _records(lines: _Lines) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines, strict=True)
    except csv.Error:
        raise AppError(f"The row in line {lines.row} is not valid CSV.") from None


def _cell(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


PARSERS: dict[str, Parser] = {
    "application/json": _array,
    "application/x-ndjson": _lines,
    "application/jsonl": _lines,
    "text/csv": _table,
}
