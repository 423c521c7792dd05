"""The interactive docs work without the internet: the page and everything it loads come from this process."""

from html import escape
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse

from plinth.errors import ConfigurationError

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
# Swagger UI's icons are data.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# All addresses are relative, so that the page also works behind a proxy that takes a prefix off.
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


def add_docs(app: FastAPI) -> None:
    """Serve Swagger UI at /docs for the schema at `app.openapi_url`.

    Raises ConfigurationError without the `docs` extra, which brings Swagger UI's files.
    """
    directory, release = _swagger_ui()
    start = _start(app.openapi_url or "/openapi.json")
    page = _PAGE.format(title=escape(app.title), assets=f"docs/{release}")

    async def show_docs(_: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    async def start_docs(_: Request) -> Response:
        return Response(start, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    async def send_asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            raise HTTPException(404)
        # The address holds the release: what is at it never changes.
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(directory / name, media_type=_ASSETS[name], headers=headers)

    app.add_route("/docs", show_docs)
    app.add_route("/docs/start.js", start_docs)
    app.add_route(f"/docs/{release}/{{name}}", send_asset)


def _swagger_ui() -> tuple[Path, str]:
    """Where its files are, and their release. The package is not imported: we want its files alone."""
    found = find_spec("fastapi_swagger")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError("HTTP_DOCS: /docs needs Swagger UI; install the `docs` extra, or set HTTP_DOCS=false")
    return Path(found.submodule_search_locations[0]) / "resources", version("fastapi-swagger")


def _start(openapi_url: str) -> bytes:
    options = {
        "url": openapi_url.lstrip("/"),
        "dom_id": "#swagger-ui",
        "deepLinking": True,
        "displayRequestDuration": True,
        "tryItOutEnabled": True,
        "validatorUrl": None,  # the default asks a server on the internet
    }
    return b"window.ui = SwaggerUIBundle(" + orjson.dumps(options) + b");\n"
