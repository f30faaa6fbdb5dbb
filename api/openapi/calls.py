"""What calls are described with: parameters, bodies, answers, and the problems that a call may meet."""

from typing import Any

import msgspec

MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": "minilm"}


def path_id(prefix: str) -> dict[str, Any]:
    pattern = f"^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$"
    return {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}


ID = path_id("job")
PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "wait=N answers 200 with the finished job if it ends within N seconds, at most 60",
    "schema": {"type": "string"},
    "example": "wait=10",
}
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "a string of your own: the same request with the same key gets the first answer, and no second job",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_PROBLEMS = {
    "400": "the body cannot be parsed",
    "401": "no key, or a wrong one",
    "404": "no such model, version, alias, pool, job, batch, upload, endpoint or delivery",
    "405": "this method is not served here",
    "409": "the state of what is asked for forbids it, or the first request with this key is still in flight",
    "413": "the body is too large",
    "415": "this content type is not taken",
    "422": "what is valid in itself, and is refused; errors[].pointer says where",
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


def call(
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


def payload(summary: str, refuses: str) -> dict[str, Any]:
    answers = {
        "200": {"description": "JSON, or the bytes with their Content-Type", "content": {"*/*": {"schema": {}}}},
        "307": {"description": "a presigned URL of it"},
    }
    return call(summary, parameters=[ID], answers=answers, refuses=refuses)


def query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


METADATA = {
    **query("metadata.KEY", {"type": "string"}),
    "description": "the metadata's value under KEY, which is any key: one parameter for each",
}


def json_of(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def answer(description: str, name: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}},
    }
