"""`/openapi.json`, and `/docs`: Swagger UI from a package, so that the page works with no internet."""

import importlib.util
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from api.http import json_response
from api.openapi import document

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Tundish API</title>
<link rel="stylesheet" href="/docs/static/swagger-ui.css">
<div id="ui"></div>
<script src="/docs/static/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", deepLinking: true, tryItOutEnabled: true})</script>
</html>
"""


def routes() -> list[BaseRoute]:
    return [
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/docs", _docs, methods=["GET"]),
        Mount("/docs/static", StaticFiles(directory=_swagger_ui())),
    ]


async def _openapi(request: Request) -> Response:
    return json_response(document())


async def _docs(request: Request) -> Response:
    return HTMLResponse(_PAGE)


def _swagger_ui() -> Path:
    """Where the package keeps the page's files; it is not imported."""
    found = importlib.util.find_spec("swagger_ui")
    if found is None or found.origin is None:
        raise RuntimeError("the package swagger-ui-py is not installed; run ./dev up, or install requirements.txt")
    return Path(found.origin).parent / "static"
