"""The Redis client of worker and chores, with servers of its own."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from local.embed import pings, valkey_program
from tests.local import wait_until
from tundish import queue
from tundish.ids import new_uuid
from tundish.job import Priority
from workers.connect import redis_client

QUEUE = queue.Queue("m", "1", Priority.NORMAL)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Path]]:
    """The sockets of two servers."""
    sockets = [tmp_path / name for name in ("first", "second")]
    with ExitStack() as running:
        for each in sockets:
            command = [valkey_program(), "--port", "0", "--save", "", "--unixsocket", str(each)]
            process = running.enter_context(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL))
            running.callback(process.kill)
            wait_until(lambda each=each: pings(f"unix://{each}"), "it answers")  # type: ignore[misc]
        yield sockets


def test_a_connection_to_a_server_that_has_become_a_replica_is_not_used_again(
    servers: list[Path], tmp_path: Path
) -> None:
    """Its name leads to the server that took its place."""
    first, second = servers
    (name := tmp_path / "name").symlink_to(first)
    with redis_client(f"unix://{name}") as client, redis.Redis.from_url(f"unix://{second}") as other:
        client.set("a", 1)
        with redis.Redis.from_url(f"unix://{first}") as operator:
            operator.replicaof("127.0.0.1", "1")
        name.unlink()
        name.symlink_to(second)
        queue.send(client, [(QUEUE, new_uuid())])
        assert other.llen(QUEUE.name) == 1
