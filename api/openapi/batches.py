"""The calls of `/v1/batches`."""

import msgspec

from api.batches import WantedBatch
from api.openapi.calls import KEY, answer, call, json_of, path_id, query
from tundish.batchview import BatchView


class BatchList(msgspec.Struct):
    data: list[BatchView]
    next_cursor: str | None


TYPES = [WantedBatch, BatchView, BatchList]

_ID = path_id("bat")
_BATCH = answer("the batch", "BatchView")
_FILE = {"307": {"description": "a presigned URL of it"}}
PATHS = {
    "/v1/batches": {
        "post": call(
            "Run an uploaded file of JSONL, each line {custom_id, input}: at most 50,000 lines and 200 MB",
            body=json_of("WantedBatch"),
            parameters=[KEY],
            answers={"201": _BATCH},
            refuses="400 401 404 409 413 415 422 503",
        ),
        "get": call(
            "List batches, newest first",
            parameters=[
                query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
                query("cursor", {"type": "string"}),
            ],
            answers={"200": answer("a page of batches", "BatchList")},
            refuses="401 422 503",
        ),
    },
    "/v1/batches/{id}": {
        "get": call("A batch", parameters=[_ID], answers={"200": _BATCH}, refuses="401 404 422 503"),
    },
    "/v1/batches/{id}/output": {
        "get": call("The output file alone", parameters=[_ID], answers=_FILE, refuses="401 404 409 422 503"),
    },
    "/v1/batches/{id}/error": {
        "get": call("The error file alone", parameters=[_ID], answers=_FILE, refuses="401 404 409 422 503"),
    },
    "/v1/batches/{id}/cancel": {
        "post": call(
            "Cancel what waits of a batch; ask for it where it runs",
            parameters=[_ID],
            answers={"200": _BATCH},
            refuses="401 404 422 503",
        )
    },
}
