"""ORJSONResponse, and links whose targets keep the encoding of the request."""

from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import pytest
from fastapi import Request, Response
from hypothesis import given
from hypothesis import strategies as st

from plinth.http import Links, ORJSONResponse
from tests.plinth.http.apps import http_scope


def links(query: bytes, path: str = "/api/things", raw_path: bytes | None = None) -> tuple[Links, Response]:
    response = Response()
    scope = http_scope(path) | {"query_string": query}
    if raw_path is not None:
        scope["raw_path"] = raw_path
    return Links(Request(scope), response), response


def page(query: bytes, next_cursor: str | None, raw_path: bytes | None = None) -> str:
    request_links, response = links(query, raw_path=raw_path)
    request_links.page(next_cursor)
    return response.headers["Link"]


def test_an_instant_is_serialized_with_z_as_by_pydantic() -> None:
    body = ORJSONResponse({"at": datetime(2026, 1, 2, tzinfo=UTC)}).body
    assert body == b'{"at":"2026-01-02T00:00:00Z"}'


def test_a_page_links_the_first_and_the_next_page() -> None:
    assert page(b"limit=2", "abc") == (
        '</api/things?limit=2>; rel="first", </api/things?limit=2&cursor=abc>; rel="next"'
    )


def test_the_last_page_has_no_link_to_a_next_one() -> None:
    assert page(b"limit=2&cursor=old", None) == '</api/things?limit=2>; rel="first"'


def test_the_first_page_without_parameters_is_the_path_itself() -> None:
    assert page(b"", None) == '</api/things>; rel="first"'


def test_the_other_parameters_keep_their_encoding() -> None:
    assert page(b"tag=a&tag=b&q=%C3%A9+x&&flag&cursor=old&%63ursor=x", "new") == (
        '</api/things?tag=a&tag=b&q=%C3%A9+x&flag>; rel="first", '
        '</api/things?tag=a&tag=b&q=%C3%A9+x&flag&cursor=new>; rel="next"'
    )


def test_a_path_keeps_its_encoding() -> None:
    assert page(b"", None, raw_path=b"/api/a%2Fb/things") == '</api/a%2Fb/things>; rel="first"'


def test_without_a_raw_path_the_path_is_encoded() -> None:
    request_links, response = links(b"", path="/api/50%/é")
    request_links.page(None)
    assert response.headers["Link"] == '</api/50%25/%C3%A9>; rel="first"'


@given(query=st.binary(), cursor=st.text())
def test_a_client_cannot_inject_into_a_link(query: bytes, cursor: str) -> None:
    header = page(query, cursor)
    first, following = header.split(", ")
    assert (first.count("<"), first.count(">"), following.count('"')) == (1, 1, 2)
    assert header.isascii()
    assert header.isprintable()


@given(cursor=st.text(st.characters(codec="utf-8")))
def test_a_cursor_survives_the_round_trip(cursor: str) -> None:
    reference = page(b"", cursor).split("<")[2].split(">")[0]
    assert parse_qsl(urlsplit(reference).query, keep_blank_values=True) == [("cursor", cursor)]


@pytest.mark.parametrize(("id", "location"), [(7, "/api/things/7"), ("a/b?", "/api/things/a%2Fb%3F")])
def test_a_created_resource_has_its_url_in_location(id: int | str, location: str) -> None:
    request_links, response = links(b"")
    request_links.created(id)
    assert response.headers["Location"] == location
