"""The OpenAPI document: the calls, with schemas made from the very types that the routes read and write. One file a
group of routes, each with its `PATHS`, and the `TYPES` that they name."""

from functools import cache

import msgspec

from api.openapi import batches, catalog, events, health, jobs, pools, uploads, webhooks
from api.openapi.calls import Problem

_TYPES = [
    *jobs.TYPES,
    *catalog.TYPES,
    *pools.TYPES,
    *uploads.TYPES,
    *batches.TYPES,
    *webhooks.TYPES,
    Problem,
]
_PATHS = {
    **jobs.PATHS,
    **events.PATHS,
    **catalog.PATHS,
    **pools.PATHS,
    **uploads.PATHS,
    **batches.PATHS,
    **webhooks.PATHS,
    **health.PATHS,
}


@cache
def document() -> bytes:
    """The document as JSON."""
    _, components = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Tundish",
                "version": "1",
                "description": "Asynchronous inference: submit a job, poll for it or be called back.",
            },
            "paths": _PATHS,
            "security": [{"key": []}, {}],
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )
