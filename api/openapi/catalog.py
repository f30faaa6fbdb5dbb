"""The calls of `/v1/models`."""

from typing import Any

import msgspec

from api.catalog import AliasPut
from api.openapi.calls import MODEL, answer, call, json_of, query


class Alias(msgspec.Struct):
    weights: dict[str, int]
    shadow: str | None


class Limits(msgspec.Struct):
    max_batch: int
    max_wait: float
    max_cost: int | None
    timeout: float | None


class ModelVersion(msgspec.Struct):
    """Schemas are JSON Schema 2020-12, null for what is not JSON; `artifact` names its weights, null where they come
    with the code; `workers` serve it now, and hold `running` of its jobs; `paused`: its jobs are accepted and wait."""

    version: str
    pool: str
    input_type: str
    output_type: str
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    limits: Limits
    example: Any
    artifact: str | None
    workers: list[dict[str, str]]
    running: int
    paused: bool


class VersionShown(ModelVersion, rename={"model_name": "name"}, kw_only=True):
    """One by itself, with the `name` of its model."""

    model_name: str


class ModelShown(msgspec.Struct, rename={"model_name": "name"}):
    model_name: str
    aliases: dict[str, Alias]
    versions: list[ModelVersion]
    running: int
    paused: bool


class ModelList(msgspec.Struct):
    data: list[ModelShown]
    next_cursor: str | None


class Quantiles(msgspec.Struct):
    p50: float
    p90: float
    p99: float


class Latency(msgspec.Struct):
    """Milliseconds: until predict began, of the predict call, and from submit to end; null where none has ended."""

    queued: Quantiles | None
    predict: Quantiles | None
    total: Quantiles | None


class Figures(msgspec.Struct):
    """`shadows` of the `jobs` are copies of another version's; `errors` counts failed ones by code."""

    jobs: int
    shadows: int
    succeeded: int
    failed: int
    canceled: int
    errors: dict[str, int]
    latency_ms: Latency


class Example(msgspec.Struct):
    job: str
    shadow: str


class Shadowed(msgspec.Struct):
    """How outputs of `shadow` agreed with those that `version` gave for the same inputs. `close`: every number within
    1e-6 + 0.1 % of the version's. `min_cosine` is over all numbers of an output. `examples` are jobs whose shadow
    differed."""

    version: str
    shadow: str
    pairs: int
    equal: int
    close: int
    different: int
    not_compared: int
    both_failed: int
    only_version_failed: int
    only_shadow_failed: int
    max_abs_diff: float | None
    min_cosine: float | None
    examples: list[Example]


class Comparison(msgspec.Struct):
    """`complete`: all jobs since `since` were looked at; else `since` is the oldest that was."""

    model: str
    since: str
    complete: bool
    versions: dict[str, Figures]
    shadows: list[Shadowed]


TYPES = [ModelShown, ModelList, VersionShown, AliasPut, Alias, Comparison]

VERSION = {**MODEL, "name": "version", "example": "1"}
_REFUSES = "401 404 422 503"


def _halt(summary: str, parameters: list[dict[str, Any]], shown: dict[str, Any]) -> dict[str, Any]:
    return {"post": call(summary, parameters=parameters, answers={"200": shown}, refuses=_REFUSES)}


_MODEL = answer("the model", "ModelShown")
_VERSION = answer("the version", "VersionShown")
PATHS = {
    "/v1/models": {
        "get": call("The catalog", answers={"200": answer("all models", "ModelList")}, refuses="401 422 503")
    },
    "/v1/models/{model}": {"get": call("A model", parameters=[MODEL], answers={"200": _MODEL}, refuses=_REFUSES)},
    "/v1/models/{model}/pause": _halt("Pause a model: its jobs are accepted and wait", [MODEL], _MODEL),
    "/v1/models/{model}/resume": _halt("Resume a model", [MODEL], _MODEL),
    "/v1/models/{model}/aliases/{alias}": {
        "put": call(
            "Move an alias, at once",
            parameters=[MODEL, {**MODEL, "name": "alias", "example": "default"}],
            body=json_of("AliasPut"),
            answers={"200": answer("the new routing", "Alias")},
            refuses="400 401 404 413 415 422 503",
        )
    },
    "/v1/models/{model}/compare": {
        "get": call(
            "Versions side by side, and how shadows agreed",
            parameters=[
                MODEL,
                query(
                    "versions", {"type": "string", "description": "with commas between; the newest ones if left out"}
                ),
                query("since", {"type": "string", "format": "date-time", "description": "an hour ago if left out"}),
            ],
            answers={"200": answer("the comparison", "Comparison")},
            refuses=_REFUSES,
        )
    },
    "/v1/models/{model}/versions/{version}": {
        "get": call("A version of a model", parameters=[MODEL, VERSION], answers={"200": _VERSION}, refuses=_REFUSES)
    },
    "/v1/models/{model}/versions/{version}/pause": _halt("Pause a version", [MODEL, VERSION], _VERSION),
    "/v1/models/{model}/versions/{version}/resume": _halt("Resume a version", [MODEL, VERSION], _VERSION),
}
