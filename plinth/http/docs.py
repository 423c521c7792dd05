"""The OpenAPI document and an interactive docs page that loads nothing from other servers."""

from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.routing import iter_route_contexts
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse

from plinth.errors import ConfigurationError
from plinth.http.conditional import IF_MATCH
from plinth.http.deprecation import deprecation_of
from plinth.http.problems import Problem, documented_problem
from plinth.http.responses import ORJSONResponse

_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}
_FASTAPI_SCHEMAS = ("HTTPValidationError", "ValidationError")
_OWN_422 = {"description": "Validation Error"}
_FASTAPI_422 = {
    **_OWN_422,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}},
}
# Swagger UI's icons are data URLs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# All URLs are relative, so that the page also works behind a proxy that strips a path prefix.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{assets}/favicon-32x32.png">
<link rel="stylesheet" href="{assets}/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{assets}/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# `validatorUrl` is null because the default sends the document to a server on the internet.
_SCRIPT = b"""window.ui = SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, displayRequestDuration: true, tryItOutEnabled: true,
  validatorUrl: null,
});
"""


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the app's OpenAPI document with the problems of every route, in place of `HTTPValidationError`.

    Every route documents 400, 429, 500 and 503; one with a security scheme 401 and 403; one with something to validate
    422; one with a request body 413 and 415; one that documents 412 accepts `If-Match` and also documents 428. A route
    declares the others by `problem_responses`.
    There is no `default` response: it would make any status valid, so that no test could fail.

    `app.openapi()` is not changed, and may return such a document already. What the service declares is kept: a 422 or
    If-Match of its own, and models of the same names; those that are named as FastAPI's own ones for validation errors
    only with `FastAPI(responses={422: {"description": "Validation Error"}})`, since it overwrites them otherwise.
    """
    document = app.openapi()
    components = document.get("components", {})
    suffix, added = _problem_schemas(components.get("schemas", {}))
    paths = {
        path: {name: _described(value, suffix) if name in _METHODS else value for name, value in item.items()}
        for path, item in document.get("paths", {}).items()
    }
    for route in iter_route_contexts(app.routes):
        deprecation, operations = deprecation_of(route.endpoint), paths.get(route.path_format or "", {})
        for method in (each.lower() for each in (deprecation and route.methods) or ()):
            if deprecation and method in operations:
                operations[method] |= deprecation.documented
    document = {
        **document,
        "paths": paths,
        "components": {**components, "schemas": dict(components.get("schemas", {}))},
    }
    for name in _FASTAPI_SCHEMAS:
        _drop_unused(document, name)
    document["components"]["schemas"] |= added
    return document


def _problem_schemas(taken: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the schemas of `Problem`, and the suffix of their names: the service may have models of these names."""
    for suffix in chain([""], map(str, count(2))):
        template = f"#/components/schemas/{{model}}{suffix}"
        _, added = models_json_schema([(Problem, "serialization")], ref_template=template)
        schemas = {f"{name}{suffix}": schema for name, schema in added["$defs"].items()}
        if all(taken.get(name, schema) == schema for name, schema in schemas.items()):
            return suffix, schemas
    raise AssertionError  # unreachable: numbers do not end


def _drop_unused(document: dict[str, Any], name: str) -> None:
    """Remove a schema that FastAPI adds for its own 422, unless the service uses it or one of that name."""
    schema = document["components"]["schemas"].pop(name, None)
    if schema is not None and f'"#/components/schemas/{name}"'.encode() in orjson.dumps(document):
        document["components"]["schemas"][name] = schema


def _described(operation: dict[str, Any], suffix: str) -> dict[str, Any]:
    def documented(status: int) -> dict[str, Any]:
        return documented_problem(status, f"Problem{suffix}")

    responses: dict[str, Any] = {
        status: documented(int(status))
        if status.isdigit() and response == documented_problem(int(status))
        else response
        for status, response in operation.get("responses", {}).items()
    }
    statuses = {400, 429, 500, 503}
    if operation.get("security"):
        statuses |= {401, 403}
    if responses.get("422") in (_FASTAPI_422, _OWN_422):
        validates = "requestBody" in operation or operation.get("parameters")
        # FastAPI adds the app's responses to every route, also where there is nothing to validate.
        if validates or responses.pop("422") == _FASTAPI_422:
            responses["422"] = documented(422)
    if "requestBody" in operation:
        statuses |= {413, 415}
    if "412" in responses:
        statuses.add(428)
        parameters = operation.get("parameters", [])
        if not any(each.get("in") == "header" and each["name"].lower() == "if-match" for each in parameters):
            operation = {**operation, "parameters": [*parameters, IF_MATCH]}
    for status in statuses:
        responses.setdefault(str(status), documented(status))
    return {**operation, "responses": dict(sorted(responses.items()))}


def add_docs(app: FastAPI) -> None:
    """Serve the OpenAPI document at /openapi.json and Swagger UI at /docs.

    Raises ConfigurationError without the `docs` extra, which contains Swagger UI's files.
    """
    directory, release = _swagger_ui()
    page = _PAGE.format(title=escape(app.title), assets=f"docs/{release}")

    async def send_openapi(request: Request) -> Response:
        document = openapi(app)
        if prefix := request.scope.get("root_path"):
            document = {**document, "servers": [{"url": prefix}, *document.get("servers", ())]}
        return ORJSONResponse(document)

    async def send_page(_: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    async def send_script(_: Request) -> Response:
        return Response(_SCRIPT, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    async def send_asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            raise HTTPException(404)
        # The URL contains the release, so its content never changes.
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(directory / name, media_type=_ASSETS[name], headers=headers)

    app.add_route("/openapi.json", send_openapi, include_in_schema=False)
    app.add_route("/docs", send_page, include_in_schema=False)
    app.add_route("/docs/start.js", send_script, include_in_schema=False)
    app.add_route(f"/docs/{release}/{{name}}", send_asset, include_in_schema=False)


def _swagger_ui() -> tuple[Path, str]:
    """Return the directory of Swagger UI's files and their release, without importing the package."""
    found = find_spec("fastapi_swagger")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError("HTTP_DOCS: /docs needs Swagger UI; install the `docs` extra, or set HTTP_DOCS=false")
    return Path(found.submodule_search_locations[0]) / "resources", version("fastapi-swagger")
