"""The calls of `/v1/models`."""

from typing import Any

import msgspec

from api.openapi.calls import MODEL, answer, call


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


TYPES = [ModelShown, ModelList, ModelVersion]

PATHS = {
    "/v1/models": {
        "get": call("The catalog", answers={"200": answer("all models", "ModelList")}, refuses="401 422 503")
    },
    "/v1/models/{model}": {
        "get": call(
            "A model",
            parameters=[MODEL],
            answers={"200": answer("the model", "ModelShown")},
            refuses="401 404 422 503",
        )
    },
    "/v1/models/{model}/versions/{version}": {
        "get": call(
            "A version of a model",
            parameters=[MODEL, {**MODEL, "name": "version", "example": "1"}],
            answers={"200": answer("the version", "ModelVersion")},
            refuses="401 404 422 503",
        )
    },
}
