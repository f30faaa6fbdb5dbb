"""Payloads of a system whose blobs lie in S3, and arrays by whichever way they come."""

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy
import pytest
import safetensors.numpy

from tests.conftest import KEY
from tests.e2e.test_batches import batch_ended, jsonl, lines, posted
from tests.e2e.test_uploads import uploaded
from tests.local import Local, ended
from tests.s3 import ENVIRONMENT, Server
from tundish.media import NPY, SAFETENSORS

BODY = b"\x00\xff" * 50_000
#: Elements of an array that goes into a row, and of one that goes into a blob.
SIZES = (3, 50_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Local]:
    settings = {
        "TUNDISH_API_KEY": KEY,
        "TUNDISH_MODELS": "tests.models:Echo,Octets,tests.tensor_models:Doubled,Tagged",
        "TUNDISH_BLOB_URL": "s3://bucket/payloads",
        "TUNDISH_S3_ENDPOINT_URL": server.url,
        **ENVIRONMENT,
    }
    local = Local(tmp_path_factory.mktemp("bucket"), settings)
    with local.running():
        yield local


@pytest.fixture
def client(local: Local) -> Iterator[httpx.Client]:
    with local.client(KEY) as client:
        yield client


def by_redirect(client: httpx.Client, server: Server, path: str) -> httpx.Response:
    """What the API redirects to, as anybody may read it who has the URL."""
    moved = client.get(path)
    assert moved.status_code == 307, moved.text
    assert moved.headers["location"].startswith(f"{server.url}/bucket/payloads/")
    answer = httpx.get(moved.headers["location"], trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer


def test_an_upload_becomes_a_result_past_the_api(client: httpx.Client, server: Server) -> None:
    job = client.post("/v1/jobs", json={"model": "octets", "upload": uploaded(client, BODY, "image/png")}).json()
    assert ended(client, job["id"])["status"] == "succeeded"
    found = by_redirect(client, server, f"/v1/jobs/{job['id']}/input")
    assert (found.content, found.headers["content-type"]) == (BODY, "image/png")
    result = by_redirect(client, server, f"/v1/jobs/{job['id']}/result")
    assert (result.content, result.headers["content-type"]) == (BODY[::-1], "application/octet-stream")


def test_the_files_of_a_batch_are_read_from_the_bucket(client: httpx.Client, server: Server) -> None:
    done = batch_ended(client, posted(client, jsonl([{"value": 1}, {"wrong": 2}]))["id"])
    assert all(done[name].startswith(f"{server.url}/bucket/payloads/") for name in ("output_url", "error_url"))
    assert [each["output"] for each in lines(client, done["output_url"])] == [{"value": 1}]
    assert [each["line"] for each in lines(client, done["error_url"])] == [2]


def sent(client: httpx.Client, model: str, body: bytes, content_type: str, by: str) -> dict[str, Any]:
    """A job on a body, once it has ended."""
    if by == "upload":
        answer = client.post("/v1/jobs", json={"model": model, "upload": uploaded(client, body, content_type)})
    else:
        answer = client.post(f"/v1/models/{model}/jobs", content=body, headers={"content-type": content_type})
    assert answer.status_code == 202, answer.text
    job = ended(client, answer.json()["id"])
    assert (job["status"], job["output"], job["output_type"]) == ("succeeded", None, content_type), job
    found = client.get(f"/v1/jobs/{job['id']}/input", follow_redirects=True)
    assert (found.content, found.headers["content-type"]) == (body, content_type)
    return job


@pytest.mark.parametrize("by", ["upload", "body"])
@pytest.mark.parametrize("size", SIZES)
def test_an_array_goes_in_and_out_as_npy(client: httpx.Client, size: int, by: str) -> None:
    array, file = numpy.arange(size, dtype=numpy.float32), io.BytesIO()
    numpy.save(file, array)
    job = sent(client, "doubled", file.getvalue(), NPY, by)
    result = client.get(f"/v1/jobs/{job['id']}/result", follow_redirects=True)
    assert result.headers["content-type"] == NPY
    found = numpy.load(io.BytesIO(result.content), allow_pickle=False)
    assert (found.dtype, found.tolist()) == (array.dtype, (array * 2).tolist())


@pytest.mark.parametrize("by", ["upload", "body"])
@pytest.mark.parametrize("size", SIZES)
def test_arrays_go_in_and_out_as_safetensors(client: httpx.Client, size: int, by: str) -> None:
    arrays: dict[str, numpy.ndarray] = {
        "a": numpy.arange(size, dtype=numpy.float32),
        "b": numpy.ones((2, 3), dtype=numpy.int64),
    }
    job = sent(client, "tagged", safetensors.numpy.save(arrays), SAFETENSORS, by)
    result = client.get(f"/v1/jobs/{job['id']}/result", follow_redirects=True)
    assert result.headers["content-type"] == SAFETENSORS
    found = safetensors.numpy.load(result.content)
    assert {name: (each.dtype, each.tolist()) for name, each in found.items()} == {
        f"out.{name}": (each.dtype, each.tolist()) for name, each in arrays.items()
    }


@pytest.mark.parametrize(("model", "content_type"), [("doubled", NPY), ("tagged", SAFETENSORS)])
def test_what_is_no_array_is_told_and_another_type_is_refused(
    client: httpx.Client, model: str, content_type: str
) -> None:
    answer = client.post(f"/v1/models/{model}/jobs", content=b"\x80none", headers={"content-type": content_type})
    error = ended(client, answer.json()["id"])["error"]
    assert (error["code"], error["retryable"]) == ("invalid_input", False)
    answer = client.post(f"/v1/models/{model}/jobs", content=b"x", headers={"content-type": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
