"""The OpenAPI document, fuzzed: nothing that it allows or forbids gets a 5xx."""

import subprocess
import sys
from pathlib import Path

import httpx
import schemathesis

from tests.conftest import KEY
from tests.local import Local


def test_no_call_of_the_document_gets_a_5xx(system: Local, tmp_path: Path) -> None:
    report = tmp_path / "report.ndjson"
    fuzzed = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            *("run", f"{system.url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"),
            *("--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing", "--seed", "7"),
            *("--max-examples", "25", "--generation-database", "none", "--no-color", "--request-timeout", "30"),
            *("--exclude-path", "/metrics", "--report-ndjson-path", str(report)),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert fuzzed.returncode == 0, fuzzed.stdout[-6000:]
    with system.client(KEY) as client:
        again = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}}, headers={"Prefer": "wait=30"})
        assert again.status_code == 200


def test_the_document_is_openapi_and_names_every_call(system: Local) -> None:
    schema = schemathesis.openapi.from_url(f"{system.url}/openapi.json")
    named = {f"{method.upper()} {path}" for path, calls in schema.items() for method in calls}
    assert named >= {
        "POST /v1/jobs",
        "POST /v1/jobs:batch",
        "POST /v1/models/{model}/jobs",
        "GET /v1/jobs",
        "GET /v1/jobs/{id}",
        "GET /v1/jobs/{id}/result",
        "GET /v1/jobs/{id}/input",
        "POST /v1/jobs/{id}/cancel",
        "POST /v1/jobs/{id}/retry",
        "DELETE /v1/jobs/{id}",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /v1/models/{model}/versions/{version}",
    }


def test_the_page_needs_no_internet(system: Local) -> None:
    with httpx.Client(base_url=system.url, trust_env=False) as anybody:
        page = anybody.get("/docs").text
        assert "http" not in page.replace("http-equiv", "")
        for file in ("swagger-ui.css", "swagger-ui-bundle.js"):
            assert f"/docs/static/{file}" in page
            assert anybody.get(f"/docs/static/{file}").status_code == 200
