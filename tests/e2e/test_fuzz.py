"""The OpenAPI document, fuzzed: nothing that it allows or forbids gets a 5xx."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis

from api.app import routes
from api.parts import build
from tests.conftest import KEY
from tests.local import Local
from tundish.settings import Settings

PAUSES = "/(pause|resume)$"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Local]:
    """A system of its own, all of whose jobs end: a stream is read until its job does."""
    settings = {"TUNDISH_API_KEY": KEY, "TUNDISH_MODELS": "tests.models:Echo,Typed,Octets,Moody"}
    local = Local(tmp_path / "system", settings)
    with local.running():
        yield local


@pytest.mark.timeout(300)  # over a thousand requests, beside all other tests
@pytest.mark.parametrize(
    "calls",
    [
        # The jobs of what is paused never end, nor do the streams that tell of them.
        pytest.param(("--exclude-path", "/metrics", "--exclude-path-regex", PAUSES), id="all but pauses"),
        pytest.param(("--include-path-regex", PAUSES), id="pauses"),
    ],
)
def test_no_call_of_the_document_gets_a_5xx(alone: Local, tmp_path: Path, calls: tuple[str, ...]) -> None:
    report = tmp_path / "report.ndjson"
    fuzzed = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            *("run", f"{alone.url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"),
            *("--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing", "--seed", "7"),
            *("--max-examples", "25", "--generation-database", "none", "--no-color", "--request-timeout", "30"),
            *("--report-ndjson-path", str(report), *calls),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert fuzzed.returncode == 0, fuzzed.stdout[-6000:]
    with alone.client(KEY) as client:
        for pool in client.get("/v1/pools").json()["data"]:
            assert client.post(f"/v1/pools/{pool['name']}/resume").status_code == 200
        for path in ("/v1/models/octets", "/v1/models/octets/versions/1"):
            assert client.post(f"{path}/resume").status_code == 200
        again = client.post("/v1/models/octets@1/jobs", content=b"1", headers={"Prefer": "wait=30"})
        assert again.status_code == 200


def test_the_document_is_openapi_and_names_every_call(system: Local) -> None:
    schema = schemathesis.openapi.from_url(f"{system.url}/openapi.json")
    named = {f"{method.upper()} {path}" for path, calls in schema.items() for method in calls}
    settings = Settings(database_url="postgresql://", redis_url="redis://", blob_url="file:///nowhere")
    served = {
        f"{method} {route.path}"
        for route in routes(build(settings))
        for method in (route.methods or set()) - {"HEAD"}
        if not route.path.startswith("/v1/blobs/")
    }
    assert {each for each in named if " /v1/" in each} == served


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/v1/jobs/{id}", "/v1/jobs/{id}"),
        ("/v1/jobs?limit=1", "/v1/jobs"),
        ("/v1/models", "/v1/models"),
        ("/v1/models/echo", "/v1/models/{model}"),
        ("/v1/models/echo/versions/1", "/v1/models/{model}/versions/{version}"),
        ("/v1/models/echo/compare", "/v1/models/{model}/compare"),
        ("/v1/workers", "/v1/workers"),
        ("/v1/pools", "/v1/pools"),
        ("/v1/pools/default", "/v1/pools/{name}"),
        ("/v1/webhooks/default", "/v1/webhooks/default"),
        ("/v1/jobs/x", "/v1/jobs/{id}"),
    ],
)
def test_an_answer_has_no_field_that_the_document_does_not_name(client: httpx.Client, path: str, call: str) -> None:
    document = client.get("/openapi.json").json()
    id = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}}).json()["id"]
    answer = client.get(path.format(id=id))
    [content] = document["paths"][call]["get"]["responses"][str(answer.status_code)]["content"].values()
    schema = {**content["schema"], "components": closed(document["components"])}
    assert not [error.message for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(answer.json())]


def closed(schema: Any) -> Any:
    """Whose objects take no fields that they do not name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    shut = {"additionalProperties": False} if "properties" in schema else {}
    return shut | {name: closed(each) for name, each in schema.items()}


def test_the_page_needs_no_internet(system: Local) -> None:
    with httpx.Client(base_url=system.url, trust_env=False) as anybody:
        page = anybody.get("/docs").text
        assert "http" not in page.replace("http-equiv", "")
        for file in ("swagger-ui.css", "swagger-ui-bundle.js"):
            assert f"/docs/static/{file}" in page
            assert anybody.get(f"/docs/static/{file}").status_code == 200
