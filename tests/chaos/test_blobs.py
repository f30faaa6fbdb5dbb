"""A store of blobs that answers 503, resets, or breaks off within its answers."""

import socket
from collections.abc import Callable, Iterator
from typing import get_args

import pytest

from tests.chaos import files
from tests.chaos.invariants import Observer, outcome
from tests.chaos.load import Load
from tests.chaos.proxy import Mode, Proxy
from tests.chaos.rig import Rig
from tests.s3 import ENVIRONMENT, Server

Times = Callable[[int], int]
CUTS: list[Mode] = [mode for mode in get_args(Mode) if mode in ("503", "half an answer", "reset")]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A real server of the protocol, behind a proxy."""
    server = Server(tmp_path_factory.mktemp("s3"))
    proxy = Proxy(lambda: socket.create_connection(("127.0.0.1", server.port)))
    yield proxy
    proxy.close()
    server.kill()


@pytest.fixture(scope="module")
def running_rig(tmp_path_factory: pytest.TempPathFactory, s3: Proxy) -> Iterator[Rig]:
    url = f"http://127.0.0.1:{s3.port}"
    settings = {"TUNDISH_BLOB_URL": "s3://bucket/chaos", "TUNDISH_S3_ENDPOINT_URL": url, **ENVIRONMENT}
    rig = Rig(tmp_path_factory.mktemp("chaos-s3"), settings)
    yield rig
    rig.close()


def test_s3_fails_while_inputs_and_results_go_through_it(
    rig: Rig, load: Load, observer: Observer, times: Times, s3: Proxy
) -> None:
    large = "x" * 200_000
    cuts = times(30)
    pids = [worker.pid for worker in rig.workers]
    sent = []
    for number in range(cuts):
        load.one(pad=large)
        sent.append(files.send(rig, 50))
        s3.cut(CUTS[number % len(CUTS)])
        load.submit(20)  # small inputs need no blob, their results do
        refused = rig.client.post("/v1/jobs", json={"model": "worked", "input": {"token": "none", "pad": large}})
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert refused.headers["retry-after"]
        s3.heal()
        load.one(pad=large)
    assert outcome("S3 503, cut short, reset", load, observer, cuts).wrong == []
    for file in sent:
        assert files.wrong(rig, file) == []
    assert [worker.pid for worker in rig.workers] == pids
