"""The OpenAPI document: the calls, with schemas made from the very types that the routes read and write."""

from functools import cache
from typing import Any

import msgspec

from api.options import Options, Submit, SubmitBatch
from tundish.view import JobView

_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": "minilm"}
_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^job_[0-7][0-9a-hjkmnp-tv-z]{25}$"},
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "wait=N answers 200 with the finished job if it ends within N seconds, at most 60",
    "schema": {"type": "string"},
    "example": "wait=10",
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "a string of your own: the same request with the same key gets the first answer, and no second job",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_PROBLEMS = {
    "400": "the body cannot be parsed",
    "401": "no key, or a wrong one",
    "404": "no such model, version, alias or job",
    "405": "this method is not served here",
    "409": "the job's state forbids it, or the first request with this key is still in flight",
    "413": "the body is too large",
    "415": "this content type is not taken",
    "422": "valid JSON that is refused; errors[].pointer says where",
    "503": "come back after Retry-After",
}


class Fault(msgspec.Struct):
    pointer: str
    detail: str


class Problem(msgspec.Struct):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    retryable: bool
    errors: list[Fault] = []


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


class Alias(msgspec.Struct):
    weights: dict[str, int]
    shadow: str | None


class Limits(msgspec.Struct):
    max_batch: int
    max_wait: float
    max_cost: int | None
    timeout: float | None


class ModelVersion(msgspec.Struct):
    """Schemas are JSON Schema 2020-12, null for what is not JSON; `workers` serve it now."""

    version: str
    pool: str
    input_type: str
    output_type: str
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    limits: Limits
    example: Any
    workers: list[dict[str, str]]


class ModelShown(msgspec.Struct, rename={"model_name": "name"}):
    model_name: str
    aliases: dict[str, Alias]
    versions: list[ModelVersion]


class ModelList(msgspec.Struct):
    data: list[ModelShown]
    next_cursor: str | None


_TYPES = [Submit, SubmitBatch, Options, JobView, JobList, BatchAnswer, ModelShown, ModelList, ModelVersion, Problem]


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
            "paths": _paths(),
            "security": [{"key": []}, {}],
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _paths() -> dict[str, Any]:
    job = _answer("the job", "JobView")
    return {
        "/v1/jobs": {
            "post": _call(
                "Submit a job",
                body=_json("Submit"),
                parameters=[_PREFER, _KEY],
                answers={"202": job, "200": job},
                refuses="400 401 404 409 413 415 422 503",
            ),
            "get": _call(
                "List jobs, newest first",
                parameters=[
                    _query("status", {"enum": ["queued", "running", "succeeded", "failed", "canceled"]}),
                    _query("model", {"type": "string"}),
                    _query("batch", {"type": "string"}),
                    _query("created_after", {"type": "string", "format": "date-time"}),
                    _query("created_before", {"type": "string", "format": "date-time"}),
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
                    _query("cursor", {"type": "string"}),
                ],
                answers={"200": _answer("a page of jobs", "JobList")},
                refuses="401 422 503",
            ),
        },
        "/v1/jobs:batch": {
            "post": _call(
                "Submit up to 10,000 inputs of one model",
                body=_json("SubmitBatch"),
                parameters=[_KEY],
                answers={"202": _answer("a job or an error for each input, in order", "BatchAnswer")},
                refuses="400 401 404 409 413 415 422 503",
            )
        },
        "/v1/models/{model}/jobs": {
            "post": _call(
                "Submit a job whose input is the body itself",
                body={"required": True, "content": {"*/*": {"schema": {}}}},
                parameters=[
                    _MODEL,
                    _PREFER,
                    _KEY,
                    _query("webhook", {"type": "string"}),
                    _query("priority", {"enum": ["low", "normal", "high"]}),
                    _query("expires_in", {"type": "number", "exclusiveMinimum": 0}),
                    _query("timeout", {"type": "number", "exclusiveMinimum": 0}),
                    _query("sticky_key", {"type": "string"}),
                ],
                answers={"202": job, "200": job},
                refuses="400 401 404 409 413 415 422 503",
            )
        },
        "/v1/jobs/{id}": {
            "get": _call(
                "A job; with wait, up to so many seconds for its end",
                parameters=[_ID, _query("wait", {"type": "number", "minimum": 0})],
                answers={"200": job},
                refuses="401 404 422 503",
            ),
            "delete": _call(
                "Delete a job that has ended, with its payloads",
                parameters=[_ID],
                answers={"204": {"description": "it is gone"}},
                refuses="401 404 409 422 503",
            ),
        },
        "/v1/jobs/{id}/result": {"get": _payload("The output alone", "401 404 409 422 503")},
        "/v1/jobs/{id}/input": {"get": _payload("The input alone", "401 404 422 503")},
        "/v1/jobs/{id}/cancel": {
            "post": _call(
                "Cancel a job that waits; ask for it where it runs",
                parameters=[_ID],
                answers={"200": job},
                refuses="401 404 422 503",
            )
        },
        "/v1/jobs/{id}/retry": {
            "post": _call(
                "Submit a job that has ended once more, with the same input and options",
                parameters=[_ID, _PREFER, _KEY],
                answers={"202": job, "200": job},
                refuses="400 401 404 409 413 422 503",
            )
        },
        "/v1/models": {
            "get": _call("The catalog", answers={"200": _answer("all models", "ModelList")}, refuses="401 422 503")
        },
        "/v1/models/{model}": {
            "get": _call(
                "A model",
                parameters=[_MODEL],
                answers={"200": _answer("the model", "ModelShown")},
                refuses="401 404 422 503",
            )
        },
        "/v1/models/{model}/versions/{version}": {
            "get": _call(
                "A version of a model",
                parameters=[_MODEL, {**_MODEL, "name": "version", "example": "1"}],
                answers={"200": _answer("the version", "ModelVersion")},
                refuses="401 404 422 503",
            )
        },
        "/healthz": {"get": _call("Liveness", answers={"200": {"description": "the process answers"}})},
        "/readyz": {
            "get": _call(
                "Readiness, with reasons",
                answers={"200": {"description": "submits are taken"}, "503": {"description": "they are not"}},
            )
        },
        "/metrics": {"get": _call("Figures for Prometheus", answers={"200": {"description": "text"}})},
    }


def _call(
    summary: str,
    *,
    answers: dict[str, Any],
    body: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
    refuses: str = "",
) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses = {**answers, **{code: {"description": _PROBLEMS[code], "content": problem} for code in refuses.split()}}
    call: dict[str, Any] = {"summary": summary, "responses": responses}
    if parameters:
        call["parameters"] = parameters
    if body:
        call["requestBody"] = body
    return call


def _payload(summary: str, refuses: str) -> dict[str, Any]:
    answers = {
        "200": {"description": "JSON, or the bytes with their Content-Type", "content": {"*/*": {"schema": {}}}},
        "307": {"description": "a presigned URL of it"},
    }
    return _call(summary, parameters=[_ID], answers=answers, refuses=refuses)


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _json(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def _answer(description: str, name: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}},
    }
