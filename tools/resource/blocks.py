"""What depends on the fields in the files of a resource.

A block is a function of a resource. Its result for the categories stands once in their file, and is replaced by its
result for another resource, which ruff formats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.resource.fields import KINDS, Default, Field, pascal, quoted

REQUEST_TYPES = sorted({kind.request.split("[")[0] for kind in KINDS.values()} - {"bool"} | {"Price", "Text"})
# What the fields of some resource need in a file; ruff removes what is not used.
IMPORTS = {
    "models": """\
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from sqlalchemy import CheckConstraint, DateTime, Enum, ForeignKey, Numeric, Text
from sqlalchemy.dialects.postgresql import JSONB
from plinth.database import Money
""",
    "schemas": f"""\
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID
from app.schemas.types import {", ".join(REQUEST_TYPES)}
""",
    "repositories": """\
from datetime import date
from decimal import Decimal
from uuid import UUID
""",
}

COMPARISONS = {"==": "this", ">=": "at least this", "<=": "at most this"}


@dataclass(frozen=True)
class Resource:
    plural: str
    singular: str
    fields: Sequence[Field]

    @property
    def class_name(self) -> str:
        return pascal(self.singular)

    @property
    def varies(self) -> bool:
        """Whether tests can send another value each time: a reference is always to the first."""
        return any(field.kind != "ref" for field in self.fields)

    @property
    def path(self) -> str:
        return self.plural.replace("_", "-")

    def imports(self, layer: str) -> str:
        enums = "".join(f"from app.enums import {field.enum_class}\n" for field in self.fields if field.enum)
        return IMPORTS[layer] + enums if layer in IMPORTS else ""


CATEGORIES = Resource(
    "categories",
    "category",
    [Field("name", "str", unique=True), Field("description", "text", default=Default('""', "", ""))],
)
Block = Callable[[Resource], str]


def lines(line: Callable[[Resource, Field], str], separator: str = "") -> Block:
    """A block of something for each field; nothing is left out."""
    return lambda resource: separator.join(filter(None, (line(resource, field) for field in resource.fields)))


def alias(resource: Resource, field: Field) -> str:
    """The name of the narrowed type of a text in the schemas, which is not one that they have already."""
    name = pascal(field.name)
    taken = name in {*REQUEST_TYPES, "Any", "Annotated", "Literal", "Decimal", "Field", "Email", "Count"}
    return f"{resource.class_name}{name}" if taken or name.endswith(("Schema", "Model", "Query")) else name


def _alias(resource: Resource, field: Field) -> str:
    if field.kind not in {"str", "text"}:
        return ""
    bounds = "max_length=10_000" if field.kind == "text" else f"max_length={field.length}, examples=[{field.sample}]"
    return f"{alias(resource, field)} = Annotated[{field.request}, Field({bounds.replace('{n}', '1')})]\n"


def _request(resource: Resource, field: Field) -> str:
    kind = alias(resource, field) if field.kind in {"str", "text"} else field.request
    return f"    {field.column}: {kind}"


def _created(resource: Resource, field: Field) -> str:
    default = field.default.python if field.default else "None"
    kind = _request(resource, field) + (" | None" if field.optional else "")
    return f"{kind}\n" if field.is_required else f"{kind} = {default}\n"


def _updated(resource: Resource, field: Field) -> str:
    return f"{_request(resource, field)} | MISSING{' | None' if field.optional else ''} = MISSING\n"


def _filters(resource: Resource, field: Field) -> str:
    kind = "Text" if field.kind == "str" else field.request
    subject = f"Only {resource.plural.replace('_', ' ')} whose `{field.column}` is"
    return "".join(
        f"    {name}: {kind} | None = Field(None, description={quoted(f'{subject} {COMPARISONS[comparison]}.')})\n"
        for name, comparison in field.parameters.items()
    )


def _column(_: Resource, field: Field) -> str:
    kind = KINDS[field.kind].column.format(length=field.length)
    if field.kind == "ref":
        kind = f'ForeignKey("{field.target}.id", ondelete="RESTRICT")'
    if field.kind == "enum":
        values = "values_callable=lambda kind: [each.value for each in kind]"
        kind = f'Enum({field.enum_class}, name="{field.enum}", {values})'
    arguments = [
        *([kind] if kind else []),
        *(["unique=True"] if field.unique else []),
        *([f"server_default={quoted(field.default.stored)}"] if field.default else []),
    ]
    column = f" = mapped_column({', '.join(arguments)})" if arguments else ""
    return f"    {field.column}: Mapped[{field.python}]{column}\n"


def _table_arguments(resource: Resource) -> str:
    rules = [
        f'CheckConstraint("{field.name} >= 0", name="{field.name}_not_negative")'
        for field in resource.fields
        if field.kind == "money"
    ]
    indexed = [field.column for field in resource.fields if field.is_filter and not field.unique]
    indexes = [f'Index(None, "{column}", "id")' for column in ("created_at", *indexed)]
    return f"__table_args__ = ({', '.join([*rules, *indexes])},)"


def _raises(resource: Resource) -> str:
    unique = " or ".join(f"a {field.words}" for field in resource.fields if field.unique)
    targets = " or ".join(dict.fromkeys(f"a {field.words}" for field in resource.fields if field.kind == "ref"))
    errors = [f"ConflictError for {unique} that is taken"] if unique else []
    errors += [f"InvalidError for {targets} that does not exist"] if targets else []
    sentence = f"Raises {', and '.join(errors)}."
    if len(sentence) > 100:
        sentence = "Raises ConflictError for a value that is taken, and InvalidError for a reference to nothing."
    return f'        """{sentence}"""\n' if errors else ""


def _sorts(resource: Resource) -> list[str]:
    return ["id", *(field.column for field in resource.fields if field.is_sort), "created_at"]


BLOCKS: dict[str, list[Block]] = {
    "models": [lines(_column), _table_arguments],
    "schemas": [
        lines(_alias),
        lines(_created),
        lines(_updated),
        lines(lambda _, field: f"    {field.column}: {field.response}\n"),
        lambda resource: ", ".join(f'"{sort}", "-{sort}"' for sort in _sorts(resource)),
        lines(_filters),
    ],
    "repositories": [
        lines(lambda _, field: f"    {field.column}: {field.python}\n"),
        lambda resource: ", ".join(f'"{sort}": {resource.class_name}.{sort}' for sort in _sorts(resource)),
        lines(
            lambda resource, field: ", ".join(
                f'"{name}": {resource.class_name}.{field.column} {comparison} bindparam("{name}")'
                for name, comparison in field.parameters.items()
            ),
            ", ",
        ),
    ],
    "services": [_raises],
    "routers": [],
}
