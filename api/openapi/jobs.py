"""The calls of `/v1/jobs`."""

import msgspec

from api.openapi.calls import ID, KEY, METADATA, MODEL, PREFER, answer, call, json_of, payload, query
from api.options import Options, Submit, SubmitBatch
from tundish.view import JobView


class JobList(msgspec.Struct):
    data: list[JobView]
    next_cursor: str | None


class Refused(msgspec.Struct):
    code: str
    message: str
    index: int


class BatchItem(msgspec.Struct):
    """`id` and `status` of a job that was taken, or `error`."""

    id: str = ""
    status: str = ""
    error: Refused | None = None


class BatchAnswer(msgspec.Struct):
    data: list[BatchItem]


TYPES = [Submit, SubmitBatch, Options, JobView, JobList, BatchAnswer]

_JOB = answer("the job", "JobView")
PATHS = {
    "/v1/jobs": {
        "post": call(
            "Submit a job",
            body=json_of("Submit"),
            parameters=[PREFER, KEY],
            answers={"202": _JOB, "200": _JOB},
            refuses="400 401 404 409 413 415 422 503",
        ),
        "get": call(
            "List jobs, newest first",
            parameters=[
                query("status", {"enum": ["queued", "running", "succeeded", "failed", "canceled"]}),
                query("model", {"type": "string"}),
                query("batch", {"type": "string"}),
                query("created_after", {"type": "string", "format": "date-time"}),
                query("created_before", {"type": "string", "format": "date-time"}),
                METADATA,
                query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
                query("cursor", {"type": "string"}),
            ],
            answers={"200": answer("a page of jobs", "JobList")},
            refuses="401 422 503",
        ),
    },
    "/v1/jobs:batch": {
        "post": call(
            "Submit up to 10,000 inputs of one model",
            body=json_of("SubmitBatch"),
            parameters=[KEY],
            answers={"202": answer("a job or an error for each input, in order", "BatchAnswer")},
            refuses="400 401 404 409 413 415 422 503",
        )
    },
    "/v1/models/{model}/jobs": {
        "post": call(
            "Submit a job whose input is the body itself",
            body={"required": True, "content": {"*/*": {"schema": {}}}},
            parameters=[
                MODEL,
                PREFER,
                KEY,
                query("webhook", {"type": "string"}),
                query("priority", {"enum": ["low", "normal", "high"]}),
                query("expires_in", {"type": "number", "exclusiveMinimum": 0}),
                query("timeout", {"type": "number", "exclusiveMinimum": 0}),
                query("sticky_key", {"type": "string"}),
                METADATA,
            ],
            answers={"202": _JOB, "200": _JOB},
            refuses="400 401 404 409 413 415 422 503",
        )
    },
    "/v1/jobs/{id}": {
        "get": call(
            "A job; with wait, up to so many seconds for its end",
            parameters=[ID, query("wait", {"type": "number", "minimum": 0, "description": "at most 60"})],
            answers={"200": _JOB},
            refuses="401 404 422 503",
        ),
        "delete": call(
            "Delete a job that has ended, with its payloads",
            parameters=[ID],
            answers={"204": {"description": "it is gone"}},
            refuses="401 404 409 422 503",
        ),
    },
    "/v1/jobs/{id}/result": {"get": payload("The output alone", "401 404 409 422 503")},
    "/v1/jobs/{id}/input": {"get": payload("The input alone", "401 404 409 422 503")},
    "/v1/jobs/{id}/cancel": {
        "post": call(
            "Cancel a job that waits; ask for it where it runs",
            parameters=[ID],
            answers={"200": _JOB},
            refuses="401 404 422 503",
        )
    },
    "/v1/jobs/{id}/retry": {
        "post": call(
            "Submit a job that has ended once more, with the same input and options",
            parameters=[ID, PREFER, KEY],
            answers={"202": _JOB, "200": _JOB},
            refuses="400 401 404 409 413 415 422 503",
        )
    },
}
