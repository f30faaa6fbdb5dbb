"""The calls of `/v1/webhooks` and `/v1/deliveries`."""

from typing import Any

import msgspec

from api.deliveries import STATUSES, DeliveryView
from api.openapi.calls import answer, call, json_of, path_id, query
from api.webhooks import DefaultSecret, EndpointChange, EndpointView, NewEndpoint


class EndpointList(msgspec.Struct):
    data: list[EndpointView]
    next_cursor: str | None


class DeliveryList(msgspec.Struct):
    data: list[DeliveryView]
    next_cursor: str | None


TYPES = [NewEndpoint, EndpointChange, EndpointView, EndpointList, DefaultSecret, DeliveryView, DeliveryList]

_ENDPOINT, _DELIVERY = path_id("whe"), path_id("whd")
_PAGE = [query("limit", {"type": "integer", "minimum": 1, "maximum": 100}), query("cursor", {"type": "string"})]


def _secret(summary: str, method: str) -> dict[str, Any]:
    return {method: call(summary, answers={"200": answer("the secret", "DefaultSecret")}, refuses="401 422 503")}


PATHS = {
    "/v1/webhooks": {
        "post": call(
            "Register an endpoint; its secret is shown now, and never again",
            body=json_of("NewEndpoint"),
            answers={"201": answer("the endpoint, with its secret", "EndpointView")},
            refuses="400 401 409 413 415 422 503",
        ),
        "get": call(
            "List endpoints, newest first",
            parameters=_PAGE,
            answers={"200": answer("a page of endpoints", "EndpointList")},
            refuses="401 422 503",
        ),
    },
    "/v1/webhooks/default": _secret("The secret that signs the webhooks of jobs", "get"),
    "/v1/webhooks/default/rotate": _secret("Make it anew; the old one signs too for 24 hours", "post"),
    "/v1/webhooks/{id}": {
        "get": call(
            "An endpoint",
            parameters=[_ENDPOINT],
            answers={"200": answer("the endpoint", "EndpointView")},
            refuses="401 404 422 503",
        ),
        "patch": call(
            "Change an endpoint; enable it again",
            parameters=[_ENDPOINT],
            body=json_of("EndpointChange"),
            answers={"200": answer("the endpoint", "EndpointView")},
            refuses="400 401 404 413 415 422 503",
        ),
        "delete": call(
            "Delete an endpoint; what waits for it becomes dead letters",
            parameters=[_ENDPOINT],
            answers={"204": {"description": "it is gone"}},
            refuses="401 404 422 503",
        ),
    },
    "/v1/webhooks/{id}/rotate": {
        "post": call(
            "A new secret; the old one signs too for 24 hours",
            parameters=[_ENDPOINT],
            answers={"200": answer("the endpoint, with its new secret", "EndpointView")},
            refuses="401 404 422 503",
        )
    },
    "/v1/webhooks/{id}/ping": {
        "post": call(
            "Send a test event",
            parameters=[_ENDPOINT],
            answers={"202": answer("its delivery", "DeliveryView")},
            refuses="401 404 409 422 503",
        )
    },
    "/v1/deliveries": {
        "get": call(
            "The log of webhooks, newest first; status=dead are the dead letters",
            parameters=[
                query("status", {"enum": list(STATUSES)}),
                query("endpoint", {"type": "string"}),
                query("job", {"type": "string"}),
                query("batch", {"type": "string"}),
                *_PAGE,
            ],
            answers={"200": answer("a page of deliveries", "DeliveryList")},
            refuses="401 422 503",
        )
    },
    "/v1/deliveries/{id}/replay": {
        "post": call(
            "Send a delivery again, with the same id and body",
            parameters=[_DELIVERY],
            answers={"202": answer("the delivery", "DeliveryView")},
            refuses="401 404 409 422 503",
        )
    },
}
