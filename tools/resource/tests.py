"""What depends on the fields in the tests of a resource: what they send, and which tests there are."""

from tools.resource.blocks import Block, Resource, lines
from tools.resource.fields import FIRST, SECOND, Field, quoted


def _data(number: int) -> Block:
    return lambda resource: (
        "{" + ", ".join(f"{quoted(field.column)}: {literal(field.value(number))}" for field in resource.fields) + "}"
    )


def _defaults(resource: Resource) -> str:
    shown = {
        field.column: field.default.shown if field.default else None
        for field in resource.fields
        if not field.is_required
    }
    return f"DEFAULTS: dict[str, Any] = {literal(shown)}\n"


def _wrong(_: Resource, field: Field) -> str:
    return "".join(f'    {{"{field.column}": {each}}},\n' for each in field.wrong)


def _unique(resource: Resource) -> str:
    return f'"field", {literal([field.column for field in resource.fields if field.unique])}'


def _sorts(resource: Resource) -> str:
    return f'"sort", {literal([field.column for field in resource.fields if field.is_sort])}'


def _filters(_: Resource, field: Field) -> str:
    """The second row is the first of those that the test creates."""
    first, second = field.value(FIRST), field.value(SECOND)
    if len(field.parameters) == 2:
        rows = [(f"min_{field.name}", second, 1), (f"max_{field.name}", first, 2)]
    else:
        rows = [(name, second if first is None else first, 1 if first is None else 2) for name in field.parameters]
    return "".join(f"        ({literal({name: value})}, [{id}]),\n" for name, value, id in rows)


def literal(value: object) -> str:
    """As ruff formats it, on one line."""
    match value:
        case str():
            return quoted(value)
        case dict():
            return "{" + ", ".join(f"{literal(key)}: {literal(each)}" for key, each in value.items()) + "}"
        case list():
            return f"[{', '.join(map(literal, value))}]"
    return repr(value)


BLOCKS: list[Block] = [
    _data(FIRST),
    _data(SECOND),
    _defaults,
    lines(_wrong),
    _unique,
    _sorts,
    lines(_filters),
]


def without_what_does_not_apply(text: str, resource: Resource) -> str:
    """Leave out the tests that would have nothing to test."""
    fields = resource.fields
    applies = {
        "test_a_field_that_is_left_out": any(not field.is_required for field in fields),
        "test_every_field_that_is_missing": any(field.is_required for field in fields),
        "test_a_value_that_is_taken": any(field.unique for field in fields),
        "test_a_list_is_sorted": any(field.is_sort for field in fields),
        "test_a_list_is_filtered": any(field.parameters for field in fields),
    }
    unwanted = [name for name, wanted in applies.items() if not wanted]
    return "\n\n\n".join(part for part in text.split("\n\n\n") if not any(name in part for name in unwanted))
