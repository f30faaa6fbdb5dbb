"""The routes of `/v1/models`: what workers wrote to the catalog, and what operators make of it."""

from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.http import encoded, json_body, known_parameters
from api.lineup import describe_alias
from api.parts import Parts
from tundish import store
from tundish.errors import NotFound, Refused
from tundish.model import NAME
from tundish.pointers import escape
from tundish.routing import Routing

#: The most that one weight may be.
HEAVIEST = 1_000_000


class AliasPut(msgspec.Struct, forbid_unknown_fields=True):
    """Weights by version are whole numbers from 0 to 1,000,000; one at least is over 0."""

    weights: Annotated[dict[str, int], msgspec.Meta(min_length=1, max_length=100)]
    shadow: str | None = None


class Catalog:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._models = parts.models

    def routes(self) -> list[Route]:
        model, version = "/v1/models/{model}", "/v1/models/{model}/versions/{version}"
        return [
            Route("/v1/models", self.list, methods=["GET"]),
            Route(model, self.get, methods=["GET"]),
            Route(f"{model}/pause", self.pause, methods=["POST"]),
            Route(f"{model}/resume", self.resume, methods=["POST"]),
            Route(f"{model}/aliases/{{alias}}", self.put_alias, methods=["PUT"]),
            Route(version, self.get_version, methods=["GET"]),
            Route(f"{version}/pause", self.pause_version, methods=["POST"]),
            Route(f"{version}/resume", self.resume_version, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        known_parameters(request, ())
        await self._models.refresh()
        running = await self._parts.run(store.running)
        data = [self._models.describe(name, running) for name in self._models.names()]
        return encoded({"data": data, "next_cursor": None})

    async def get(self, request: Request) -> Response:
        known_parameters(request, ())
        return encoded(await self._model(request))

    async def get_version(self, request: Request) -> Response:
        known_parameters(request, ())
        return encoded(await self._version(request))

    async def put_alias(self, request: Request) -> Response:
        known_parameters(request, ())
        asked = await json_body(request, self._parts.settings.max_body, AliasPut, "an alias")
        name, alias = (await self._model(request))["name"], request.path_params["alias"]
        faults = _faults(asked, alias, {version.version for version in self._models.versions(name)})
        if faults:
            detail = f"{faults[0]['pointer']}: {faults[0]['detail']}"
            raise Refused("invalid_request", detail, faults)
        routing = Routing(asked.weights, asked.shadow)
        await self._parts.change(store.route, name, alias, routing)
        return encoded(describe_alias(routing))

    async def pause(self, request: Request) -> Response:
        return await self._halt(request, store.pause)

    async def resume(self, request: Request) -> Response:
        return await self._halt(request, store.resume)

    async def pause_version(self, request: Request) -> Response:
        return await self._halt_version(request, store.pause)

    async def resume_version(self, request: Request) -> Response:
        return await self._halt_version(request, store.resume)

    async def _halt(self, request: Request, verb: store.Halt) -> Response:
        known_parameters(request, ())
        shown = await self._model(request)
        await self._parts.change(verb, "model", shown["name"])
        return encoded(await self._model(request))

    async def _halt_version(self, request: Request, verb: store.Halt) -> Response:
        known_parameters(request, ())
        shown = await self._version(request)
        await self._parts.change(verb, "version", f"{shown['name']}@{shown['version']}")
        return encoded(await self._version(request))

    async def _model(self, request: Request) -> dict[str, Any]:
        """The model of the path as it is now. Raises NotFound and Unavailable."""
        await self._models.refresh()
        found = self._models.describe(request.path_params["model"], await self._parts.run(store.running))
        if found is None:
            raise NotFound("model_not_found", "there is no such model; GET /v1/models lists them")
        return found

    async def _version(self, request: Request) -> dict[str, Any]:
        """The version of the path as it is now. Raises NotFound and Unavailable."""
        await self._models.refresh()
        model, version = request.path_params["model"], request.path_params["version"]
        found = self._models.describe_version(model, version, await self._parts.run(store.running))
        if found is None:
            raise NotFound("version_not_found", "there is no such version; GET /v1/models lists them")
        return found


def _faults(asked: AliasPut, alias: str, versions: set[str]) -> list[dict[str, str]]:
    """What is wrong with an alias' routing, each fault with its pointer."""
    there = f"is no version of the model; there are: {', '.join(sorted(versions))}"
    faults: list[tuple[str, str]] = []
    if not NAME.fullmatch(alias):
        faults.append(("/alias", f"in the path: a name matches {NAME.pattern}"))
    for version, weight in asked.weights.items():
        if version not in versions:
            faults.append((f"/weights/{escape(version)}", there))
        elif not 0 <= weight <= HEAVIEST:
            faults.append((f"/weights/{escape(version)}", f"a weight is a whole number from 0 to {HEAVIEST}"))
    if not any(weight > 0 for weight in asked.weights.values()):
        faults.append(("/weights", "one weight at least is over 0"))
    if asked.shadow is not None and asked.shadow not in versions:
        faults.append(("/shadow", there))
    return [{"pointer": pointer, "detail": detail} for pointer, detail in faults]
