"""The calls of `/v1/workers` and `/v1/pools`."""

from typing import Any, Literal

import msgspec

from api.openapi.calls import answer, call, query


class Placed(msgspec.Struct):
    """Where a model lies: on the device, in host memory, or nowhere, to be loaded for its next batch. `bytes` are what
    it takes of the device while it is there, null until they were measured; `error` is why it could not be brought
    there the last time, else null."""

    place: Literal["device", "host", "nowhere"]
    bytes: int | None
    error: str | None = None


class WorkerShown(msgspec.Struct):
    """One boot of a worker process. Memory is the device's, in bytes, null where it has none that is counted; `places`
    are those of all that it serves, `models` what its device can hold of it; `batch_size` is its last batch's; `lost`:
    its device cannot be used, or it was not seen for a lease, and did not say that it stops."""

    id: str
    pool: str
    device: str
    memory_total: int | None
    memory_used: int | None
    models: list[str]
    places: dict[str, Placed]
    batch_size: int | None
    state: Literal["idle", "busy", "draining", "lost"]
    pid: int
    host: str
    seen_at: str


class WorkerList(msgspec.Struct):
    data: list[WorkerShown]
    next_cursor: str | None


class PoolShown(msgspec.Struct, rename={"pool_name": "name"}):
    """`backlog` waits, the oldest of it for `oldest_age_s`; rates are over the last minute; `workers` are there and not
    draining; workers hold `running` jobs."""

    pool_name: str
    models: list[str]
    backlog: int
    oldest_age_s: float
    arrival_per_s: float
    service_per_s: float
    workers: int
    suggested_replicas: int
    running: int
    paused: bool


class PoolList(msgspec.Struct):
    data: list[PoolShown]
    next_cursor: str | None


TYPES = [Placed, WorkerShown, WorkerList, PoolShown, PoolList]

_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "example": "gpu"}
_TARGET = query(
    "target_wait",
    {
        "type": "integer",
        "minimum": 1,
        "maximum": 999999,
        "description": "seconds that a job should wait at most, for suggested_replicas; 30 if left out",
    },
)
_POOL = answer("the pool", "PoolShown")


def _halt(summary: str) -> dict[str, Any]:
    return {"post": call(summary, parameters=[_NAME, _TARGET], answers={"200": _POOL}, refuses="401 404 422 503")}


PATHS = {
    "/v1/workers": {
        "get": call("The workers", answers={"200": answer("all workers", "WorkerList")}, refuses="401 422 503")
    },
    "/v1/pools": {
        "get": call(
            "The pools",
            parameters=[_TARGET],
            answers={"200": answer("all pools", "PoolList")},
            refuses="401 422 503",
        )
    },
    "/v1/pools/{name}": {
        "get": call("A pool", parameters=[_NAME, _TARGET], answers={"200": _POOL}, refuses="401 404 422 503")
    },
    "/v1/pools/{name}/pause": _halt("Pause a pool: its jobs are accepted and wait"),
    "/v1/pools/{name}/resume": _halt("Resume a pool"),
}
