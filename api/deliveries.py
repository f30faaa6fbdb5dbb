"""The routes of `/v1/deliveries`: the log of webhooks, its dead letters, and replay."""

from typing import Any
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.http import bad_query, encoded, known_parameters, page, page_before, page_limit
from api.parts import Parts
from tundish import store
from tundish.errors import Conflict, NotFound
from tundish.ids import floor_uuid, from_text, to_text
from tundish.view import rfc3339, shown_id

STATUSES = ("pending", "delivered", "dead")


class Attempt(msgspec.Struct):
    """A try: the receiver's status, or why there was none."""

    at: str
    status_code: int | None
    error: str | None
    ms: int


class DeliveryView(msgspec.Struct):
    """A webhook that was sent or waits: to a registered `endpoint`, or to the URL that a job or batch came with."""

    id: str
    endpoint: str | None
    job: str | None
    batch: str | None
    event: str
    status: str
    attempts: list[Attempt]
    next_at: str | None


def shown(row: store.DeliveryRow) -> DeliveryView:
    return DeliveryView(
        id=to_text("whd", row.id),
        endpoint=shown_id("whe", row.endpoint),
        job=shown_id("job", row.job),
        batch=shown_id("bat", row.batch),
        event=row.event,
        status=row.status,
        attempts=[Attempt(**each) for each in row.attempts],
        next_at=rfc3339(row.next_at) if row.next_at else None,
    )


def no_such_delivery() -> NotFound:
    return NotFound("delivery_not_found", "there is no such delivery, or its job was deleted")


class Deliveries:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [
            Route("/v1/deliveries", self.list, methods=["GET"]),
            Route("/v1/deliveries/{id}/replay", self.replay, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        given = known_parameters(request, ("status", "endpoint", "job", "batch", "limit", "cursor"))
        search = store.DeliverySearch(page_before(given), self._oldest(), page_limit(given), **_filters(given))
        listing = await self._parts.run(store.list_deliveries, request.state.tenant, search)
        return page([shown(row) for row in listing.deliveries], listing.next_before)

    async def replay(self, request: Request) -> Response:
        known_parameters(request, ())
        id, tenant = from_text("whd", request.path_params["id"]), request.state.tenant
        found = await self._parts.run(store.delivery, tenant, id) if id and id >= self._oldest() else None
        if found is None:
            raise no_such_delivery()
        if found.endpoint:
            endpoint = await self._parts.run(store.endpoint, tenant, found.endpoint)
            if endpoint is None or not endpoint.enabled:
                detail = "is disabled: enable it first" if endpoint else "was deleted"
                raise Conflict("endpoint_disabled", f"the endpoint of this delivery {detail}")
        row = await self._parts.run(store.replay, tenant, found.id, since=self._oldest())
        if row is None:
            raise no_such_delivery()
        return encoded(shown(row), 202)

    def _oldest(self) -> UUID:
        """The first id within the retention, which holds to the second though rows go by the day."""
        return floor_uuid(self._parts.oldest)


def _filters(given: dict[str, str]) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    if "status" in given:
        if given["status"] not in STATUSES:
            raise bad_query("status", "is pending, delivered or dead")
        filters["status"] = given["status"]
    for name, prefix, what in (
        ("endpoint", "whe", "an endpoint"),
        ("job", "job", "a job"),
        ("batch", "bat", "a batch"),
    ):
        if name in given:
            filters[name] = from_text(prefix, given[name])
            if filters[name] is None:
                raise bad_query(name, f"is not the id of {what}")
    return filters
