"""Reads path, query, header and cookie parameters.

A parameter that is one plain value, or a query model of such, is read here. FastAPI's own function reads all others.
Like `dependants`, this looks inside FastAPI; see there.
"""

from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi._compat import ModelField, field_annotation_is_sequence, get_cached_model_fields
from fastapi.dependencies import utils
from fastapi.dependencies.models import Dependant

Query = Mapping[str, str]
Reader = Callable[[Request, Query], Any]
"""Returns a parameter's value. Raises InvalidParameter."""

_IMMUTABLE = (NoneType, bool, int, float, str)


class InvalidParameter(Exception):  # noqa: N818 - a signal
    """Missing or wrong. FastAPI finds out what to answer."""


def parse_query(request: Request) -> Query:
    """A dict, which takes half the time of `request.query_params`, unless a name is repeated."""
    pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    query = dict(pairs)
    return query if len(query) == len(pairs) else request.query_params


def readers(dependant: Dependant) -> Iterator[tuple[str, Reader]]:
    """The name of each parameter with its reader, in FastAPI's order."""
    for attribute, found in {
        "path_params": dependant.path_params,
        "query_params": dependant.query_params,
        "headers": dependant.header_params,
        "cookies": dependant.cookie_params,
    }.items():
        for field in found:
            by_fastapi = _by_fastapi(field, attribute)
            if _is_plain(field) and utils._get_param_model(field) is None:
                yield field.name, _plain(field, attribute)
            elif attribute == "query_params" and _is_plain_model(field):
                yield field.name, _plain_model(field, by_fastapi)
            else:
                yield field.name, by_fastapi


def validate(field: ModelField, value: Any) -> Any:
    valid, errors = field.validate(value)
    if errors:
        raise InvalidParameter
    return valid


def _is_plain(field: ModelField) -> bool:
    """One value by one name."""
    return len(utils._get_param_aliases(field)) == 1 and not field_annotation_is_sequence(field.field_info.annotation)


def _is_plain_model(field: ModelField) -> bool:
    kind: Any = field.field_info.annotation
    is_model = utils._get_param_model(field) is kind  # an optional one is not
    return is_model and all(_is_plain(each) for each in get_cached_model_fields(kind))


def _by_fastapi(field: ModelField, attribute: str) -> Reader:
    def read(request: Request, _query: Query) -> Any:
        values, errors = utils.request_params_to_args([field], getattr(request, attribute))
        if errors:
            raise InvalidParameter
        return values[field.name]

    return read


def _plain(field: ModelField, attribute: str) -> Reader:
    [(_, name)] = utils._get_param_aliases(field)
    default = field.field_info.default
    # Others are copied or validated.
    has_default = type(default) in _IMMUTABLE and not field.field_info.validate_default
    by_fastapi = _by_fastapi(field, attribute)

    def read(request: Request, query: Query) -> Any:
        received = query if attribute == "query_params" else getattr(request, attribute)
        value = received.get(name)
        if value is not None:
            return validate(field, value)
        return default if has_default else by_fastapi(request, query)

    return read


def _plain_model(field: ModelField, by_fastapi: Reader) -> Reader:
    kind: Any = field.field_info.annotation
    names = [utils._get_param_aliases(each)[0][1] for each in get_cached_model_fields(kind)]

    def read(request: Request, query: Query) -> Any:
        if type(query) is not dict:
            return by_fastapi(request, query)
        value = {name: query[name] for name in names if name in query}
        value.update((name, query[name]) for name in query if name not in value)
        return validate(field, value)

    return read
