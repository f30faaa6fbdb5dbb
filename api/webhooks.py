"""The routes of `/v1/webhooks`: the endpoints that a tenant registers, and the secret of its jobs' own webhooks."""

from collections.abc import Iterable
from typing import Annotated, Literal, NoReturn
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import deliveries
from api.http import encoded, json_body, known_parameters, page, page_before, page_limit
from api.parts import Parts
from tundish import store
from tundish.errors import Conflict, NotFound
from tundish.ids import from_text, new_uuid, to_text
from tundish.view import event_body
from tundish.webhooks import EVENTS, new_secret

#: Endpoints of one tenant: an event is written once for each, in the transaction of the job's end.
MOST = 200

Url = Annotated[str, Meta(max_length=2048)]
Events = Annotated[list[Literal[EVENTS]], Meta(min_length=1, max_length=len(EVENTS))]  # type: ignore[valid-type]  # a literal of a tuple's values, which mypy does not read


class NewEndpoint(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/webhooks`."""

    url: Url
    events: Events


class EndpointChange(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PATCH /v1/webhooks/{id}`: what is not given stays as it is."""

    url: Url | UnsetType = UNSET
    events: Events | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class EndpointView(msgspec.Struct):
    """`secret` is shown where it is new, and never again."""

    id: str
    url: str
    events: list[str]
    enabled: bool
    secret: str | UnsetType = UNSET


class DefaultSecret(msgspec.Struct):
    """What signs the webhooks that jobs come with."""

    secret: str


class Webhooks:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [
            Route("/v1/webhooks", self.create, methods=["POST"]),
            Route("/v1/webhooks", self.list, methods=["GET"]),
            Route("/v1/webhooks/default", self.default, methods=["GET"]),
            Route("/v1/webhooks/default/rotate", self.rotate_default, methods=["POST"]),
            Route("/v1/webhooks/{id}", self.get, methods=["GET"]),
            Route("/v1/webhooks/{id}", self.change, methods=["PATCH"]),
            Route("/v1/webhooks/{id}", self.delete, methods=["DELETE"]),
            Route("/v1/webhooks/{id}/rotate", self.rotate, methods=["POST"]),
            Route("/v1/webhooks/{id}/ping", self.ping, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        known_parameters(request, ())
        asked = await json_body(request, self._parts.settings.max_body, NewEndpoint, "an endpoint")
        self._parts.rules.check_url("url", asked.url)
        endpoint = store.Endpoint(new_uuid(), request.state.tenant, asked.url, _once(asked.events))
        secret = new_secret()
        if not await self._parts.run(store.add_endpoint, endpoint, secret, most=MOST):
            raise Conflict("too_many_endpoints", f"there are {MOST} endpoints; delete one that is not used")
        response = encoded(_shown(endpoint, secret), 201)
        response.headers["location"] = f"{self._parts.settings.public_url}/v1/webhooks/{to_text('whe', endpoint.id)}"
        return response

    async def list(self, request: Request) -> Response:
        given = known_parameters(request, ("limit", "cursor"))
        limit = page_limit(given)
        found = await self._parts.run(store.endpoints, request.state.tenant, before=page_before(given), limit=limit + 1)
        more = len(found) > limit
        return page([_shown(each) for each in found[:limit]], found[limit - 1].id if more else None)

    async def get(self, request: Request) -> Response:
        known_parameters(request, ())
        return encoded(_shown(await self._endpoint(request)))

    async def change(self, request: Request) -> Response:
        known_parameters(request, ())
        asked = await json_body(request, self._parts.settings.max_body, EndpointChange, "an endpoint")
        if asked.url is not UNSET:
            self._parts.rules.check_url("url", asked.url)
        given = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not UNSET}
        if "events" in given:
            given["events"] = _once(given["events"])
        endpoint = await self._parts.run(store.change_endpoint, request.state.tenant, _id(request), **given)
        return encoded(_shown(endpoint or _missing()))

    async def delete(self, request: Request) -> Response:
        known_parameters(request, ())
        if not await self._parts.run(store.remove_endpoint, request.state.tenant, _id(request)):
            _missing()
        return Response(status_code=204)

    async def rotate(self, request: Request) -> Response:
        known_parameters(request, ())
        secret = new_secret()
        endpoint = await self._parts.run(store.rotate_secret, request.state.tenant, _id(request), secret)
        return encoded(_shown(endpoint or _missing(), secret))

    async def ping(self, request: Request) -> Response:
        """The test event goes the way of all others: through the outbox, signed, tried again, and into the log."""
        known_parameters(request, ())
        endpoint = await self._endpoint(request)
        if not endpoint.enabled:
            raise Conflict("endpoint_disabled", "the endpoint is disabled: enable it first")
        return encoded(deliveries.shown(await self._parts.run(_ping, endpoint)), 202)

    async def default(self, request: Request) -> Response:
        known_parameters(request, ())
        return encoded(DefaultSecret(await self._parts.run(store.default_secret, request.state.tenant)))

    async def rotate_default(self, request: Request) -> Response:
        known_parameters(request, ())
        secret = new_secret()
        await self._parts.run(store.rotate_default_secret, request.state.tenant, secret)
        return encoded(DefaultSecret(secret))

    async def _endpoint(self, request: Request) -> store.Endpoint:
        return await self._parts.run(store.endpoint, request.state.tenant, _id(request)) or _missing()


def _ping(connection: store.Connection, endpoint: store.Endpoint) -> store.DeliveryRow:
    at = store.clock(connection)
    body = event_body("ping", at, {"endpoint": to_text("whe", endpoint.id)})
    ping = store.Delivery(new_uuid(at), endpoint.tenant, endpoint.id, "ping", endpoint.url, body, endpoint=endpoint.id)
    store.deliver(connection, [ping])
    row = store.delivery(connection, endpoint.tenant, ping.id)
    assert row  # it was stored just now
    return row


def _id(request: Request) -> UUID:
    return from_text("whe", request.path_params["id"]) or _missing()


def _missing() -> NoReturn:
    raise NotFound("endpoint_not_found", "there is no such endpoint; GET /v1/webhooks lists them")


def _once(events: Iterable[str]) -> list[str]:
    """Each event once, in the order of EVENTS."""
    return [event for event in EVENTS if event in set(events)]


def _shown(endpoint: store.Endpoint, secret: str | UnsetType = UNSET) -> EndpointView:
    return EndpointView(to_text("whe", endpoint.id), endpoint.url, endpoint.events, endpoint.enabled, secret)
