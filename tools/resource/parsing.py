"""`number:str:unique` as a field. Whatever cannot become one is refused by a SetupError, which says what to do."""

import builtins
import keyword
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.orm import DeclarativeBase

from plinth.database.enums import DIALECT
from plinth.testing.locks import SetupError
from tools.resource.fields import KINDS, Default, Field, quoted

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LABEL = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
TYPE = re.compile(r"(\w+)(?:\(([^()]*)\))?(\?)?")
DECIMALS = {"money": re.compile(r"[0-9]{1,10}(\.[0-9]{1,2})?"), "decimal": re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,4})?")}
LONGEST_NAME = 40
# What the rows, models and schemas of every resource have.
TAKEN = {"id", "version", "created_at", "updated_at", "last_modified_at", "metadata", "registry", "update", "changes"}
OF_CLASSES = (BaseModel, DeclarativeBase, tuple)
SHADOWING = {"self", "date", "datetime"}  # a class with such a field could not name the type after it


def parse(specification: str, resource: str, singular: str) -> Field:
    """The field of a resource, whose names are given."""
    head, has_default, default = specification.partition("=")
    for flag in (":unique", ":index"):  # they may stand after the default, too
        if default.endswith(flag):
            head, default = head + flag, default.removesuffix(flag)
    name, *parts = head.split(":")
    check_name(name, "field")
    if not parts:
        raise SetupError(f"The field {name} has no type. Write {name}:str, or another of {', '.join(KINDS)}.")
    found = TYPE.fullmatch(parts[0])
    kind, argument, mark = found.groups() if found else (parts[0], None, None)
    if kind not in KINDS:
        raise SetupError(f"{name} is of the unknown type {parts[0]!r}. The types are {', '.join(KINDS)}.")
    flags = parts[1:]
    if kind in {"enum", "ref"} and argument is None and flags:  # `ref:customers`, for shells that keep parentheses
        mark = mark or ("?" if flags[0].endswith("?") else None)
        argument, *flags = flags[0].removesuffix("?"), *flags[1:]
    for flag in flags:
        if flag not in {"unique", "index"}:
            raise SetupError(f"{name} has {flag!r} after its type, where only unique and index may stand.")
    field = Field(name, kind, optional=mark is not None, unique="unique" in flags, index="index" in flags)
    field = _with_argument(field, argument, resource, singular)
    _check(field)
    return replace(field, default=_default(field, default)) if has_default else field


def check_name(name: str, what: str) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise SetupError(
            f"{name!r} is no name for a {what}. Write lower-case words of Latin letters and digits, joined by "
            f"underscores, {LONGEST_NAME} characters at most."
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or hasattr(builtins, name):
        raise SetupError(f"{name} is no name for a {what}, because it is a word of Python. Choose another one.")


def check_identifier(name: str, what: str) -> None:
    """Of SQL."""
    if name in DIALECT.identifier_preparer.reserved_words:
        raise SetupError(f"{name} is no name for a {what}, because it is a reserved word of SQL. Choose another one.")


def _with_argument(field: Field, argument: str | None, resource: str, singular: str) -> Field:
    match field.kind:
        case "str" if argument is not None:
            if not re.fullmatch(r"[0-9]{1,4}", argument) or not 3 <= int(argument) <= 500:
                raise SetupError(f"{field.name}:str({argument}) is no length. Write one of 3 to 500, such as str(64).")
            return replace(field, length=int(argument))
        case "enum":
            labels = [label.strip() for label in (argument or "").split(",")]
            if len({label.replace("-", "_") for label in labels}) < max(2, len(labels)) or not all(
                LABEL.fullmatch(label) and len(label) <= LONGEST_NAME for label in labels
            ):
                raise SetupError(
                    f"{field.name}:enum needs two different labels or more, in lower-case Latin letters: "
                    f"write {field.name}:enum(draft,paid)."
                )
            return replace(field, enum=f"{singular}_{field.name}", labels=tuple(labels))
        case "ref":
            if not argument or not NAME.fullmatch(argument.strip().replace("-", "_")):
                raise SetupError(f"{field.name}:ref needs a resource: write {field.name}:ref(customers).")
            target = argument.strip().replace("-", "_")
            return replace(field, target=target, is_self=target == resource)
    if argument is not None:
        raise SetupError(f"{field.name}:{field.kind} takes nothing in parentheses, but there is ({argument}).")
    return field


def _check(field: Field) -> None:
    name, kind = field.column, KINDS[field.kind]
    check_identifier(name, "field")
    if {name, field.name} & TAKEN or any(hasattr(each, name) or hasattr(each, field.name) for each in OF_CLASSES):
        raise SetupError(f"A field cannot be named {field.name}: every resource has something of that name already.")
    if {name, field.name} & SHADOWING or name.startswith(("model_validate", "model_dump")):
        raise SetupError(f"A field cannot be named {field.name}: the code of every resource uses that name.")
    if field.unique and not kind.is_unique:
        raise SetupError(f"{field.name} cannot be unique, because it is a {field.kind}. Leave out :unique.")
    if field.index and not kind.is_indexed:
        raise SetupError(f"{field.name} cannot have an index, because it is a {field.kind}. Leave out :index.")
    if field.unique and field.index:
        raise SetupError(f"{field.name} has an index by being unique. Leave out :index.")
    if field.is_self and not field.optional:
        raise SetupError(f"{field.name} refers to its own resource, so it must be optional: ref({field.target})?.")


def _default(field: Field, text: str) -> Default:
    if field.unique or field.kind == "ref":
        reason = "is unique" if field.unique else "refers to something that may not exist"
        raise SetupError(f"{field.name} cannot have a default, because it {reason}. Leave out ={text}.")
    try:
        return _parsed(field, text)
    except (ValueError, ArithmeticError):
        raise SetupError(f"{field.name} cannot have the default {text!r}: this is no {field.kind} of it.") from None


def _parsed(field: Field, text: str) -> Default:
    """Raises ValueError or ArithmeticError."""
    python, stored, shown = text, text, text  # type: str, str, object
    match field.kind:
        case "str" | "text":
            _require(text.isprintable() and (field.kind == "text" or (text.strip() and len(text) <= field.length)))
            python = quoted(text)
        case "int":
            _require(-(2**31) <= int(text) < 2**31)
            python, stored, shown = str(int(text)), str(int(text)), int(text)
        case "decimal" | "money":
            _require(DECIMALS[field.kind].fullmatch(text))
            number = Decimal(text).quantize(Decimal("0.01" if field.kind == "money" else "0.0001"))
            python, shown = f'Decimal("{number}")', str(number)
            stored = str(int(number * 100)) if field.kind == "money" else str(number)
        case "bool":
            _require(text in {"true", "false"})
            python, shown = text.capitalize(), text == "true"
        case "date":
            day = date.fromisoformat(text)
            python, stored, shown = f"date({day.year}, {day.month}, {day.day})", str(day), str(day)
        case "datetime":
            instant = datetime.fromisoformat(text)
            _require(instant.tzinfo)
            stored = instant.astimezone(UTC).isoformat()
            python, shown = f'datetime.fromisoformat("{stored}")', stored.replace("+00:00", "Z")
        case "uuid":
            python, stored, shown = f'UUID("{UUID(text)}")', str(UUID(text)), str(UUID(text))
        case "enum":
            _require(text in field.labels)
            python = f"{field.enum_class}.{member(text)}"
        case "json":
            _require(text == "{}")
            python, shown = "Field(default_factory=dict)", {}
    return Default(python, stored, shown)


def _require(condition: object) -> None:
    if not condition:
        raise ValueError


def member(label: str) -> str:
    """The name of a label in Python: IN_PROGRESS for "in-progress"."""
    return label.upper().replace("-", "_")


def singular_of(plural: str) -> str | None:
    """Of the usual forms; None where there is none to be seen."""
    for ending, letters, singular in SINGULARS:
        if re.search(ending, plural):
            return plural[: len(plural) - letters] + singular
    return None


# By their endings, the first that fits: how many letters go, and what comes.
SINGULARS: Sequence[tuple[str, int, str]] = (
    (r"(movie|cookie|cache|pie)s$", 1, ""),
    (r"[^aeiou]ies$", 3, "y"),
    (r"(ss|x|zz|ch|sh|[^aeo]us)es$", 2, ""),
    (r"[^sui]s$", 1, ""),
)
