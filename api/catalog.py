"""The routes of `/v1/models`: what workers wrote to the catalog."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.http import encoded, known_parameters
from api.parts import Parts
from tundish.errors import NotFound


class Catalog:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._models = parts.models

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self.list, methods=["GET"]),
            Route("/v1/models/{model}", self.get, methods=["GET"]),
            Route("/v1/models/{model}/versions/{version}", self.get_version, methods=["GET"]),
        ]

    async def list(self, request: Request) -> Response:
        known_parameters(request, ())
        await self._models.refresh()
        return encoded({"data": [self._models.describe(name) for name in self._models.names()], "next_cursor": None})

    async def get(self, request: Request) -> Response:
        known_parameters(request, ())
        await self._models.refresh()
        found = self._models.describe(request.path_params["model"])
        if found is None:
            raise NotFound("model_not_found", "there is no such model; GET /v1/models lists them")
        return encoded(found)

    async def get_version(self, request: Request) -> Response:
        known_parameters(request, ())
        await self._models.refresh()
        found = self._models.describe_version(request.path_params["model"], request.path_params["version"])
        if found is None:
            raise NotFound("version_not_found", "there is no such version; GET /v1/models lists them")
        return encoded(found)
