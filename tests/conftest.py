"""One running system for all tests that need no more than to talk to it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.local import Local

KEY = "a key for tests"


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("system")
    settings = {
        "TUNDISH_API_KEY": KEY,
        "TUNDISH_LEASE": "3",
        "TUNDISH_MAX_BODY": "4000000",
        "TUNDISH_OUTBOUND_ALLOW": "127.0.0.0/8",
    }
    local = Local(folder, settings)
    with local.running():
        yield local


@pytest.fixture
def client(system: Local) -> Iterator[httpx.Client]:
    with system.client(KEY) as client:
        yield client
