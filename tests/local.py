"""A running system for tests: started by the same command as a user's, in a folder of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from local.http import free_port
from local.ps import rows

TREE = Path(__file__).parent.parent
MODELS = "tests.models:Echo,Typed,Octets,Moody,Gated,Teller,Scale1,Scale2,Scale3,Shout,Inverted,Measured,Made"

#: A certificate for `localhost`, which signs itself, and its key.
LOCALHOST = Path(__file__).parent / "localhost.pem"

T = TypeVar("T")


def wait_until(found: Callable[[], T | None], what: str, timeout: float = 30) -> T:
    """What `found` gives once it gives something; looks every few milliseconds. AssertionError after `timeout` s."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if (value := found()) is not None and value is not False:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {timeout:g} s")


def submit(client: httpx.Client, model: str, input: Any, **options: Any) -> dict[str, Any]:
    """A new job."""
    answer = client.post("/v1/jobs", json={"model": model, "input": input, **options})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def ended(client: httpx.Client, id: str) -> dict[str, Any]:
    """A job, once it has ended."""
    return wait_until(
        lambda: (job := client.get(f"/v1/jobs/{id}?wait=20").json())["finished_at"] and job, f"{id} ended", 100
    )


@dataclass
class Local:
    """`./dev` in a folder."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    here: Path = TREE  # the folder that the command is run in

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TUNDISH_")}
        given = {
            "TUNDISH_DATA_DIR": str(self.folder),
            "TUNDISH_PORT": str(self.port),
            "TUNDISH_MODELS": MODELS,
            "PYTHONPATH": str(TREE),
            **self.settings,
        }
        return clean | given

    def start(self, *words: str, group: bool = False) -> "subprocess.Popen[str]":
        """Run `./dev` with such words, in a process group of its own where a signal shall reach all of it."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "local", *words],
            env=self.environment,
            cwd=self.here,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0 if group else None,
            # As in a terminal: a shell that runs the tests in the background has them ignore Ctrl-C.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: str, timeout: float = 100) -> "subprocess.CompletedProcess[str]":
        with self.start(*words) as process:
            try:
                output, _ = process.communicate(timeout=timeout)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    @contextmanager
    def running(self, *words: str) -> Iterator[str]:
        """It runs in the background within the block, started with such words; gives what its start said."""
        started = self.run("up", "-d", *words)
        try:
            assert started.returncode == 0, started.stdout
            yield started.stdout
        finally:
            stopped = self.run("down")
        assert stopped.returncode == 0, stopped.stdout

    def beside(self, **settings: str) -> dict[str, str]:
        """The environment of a worker beside those that it runs, with settings of its own."""
        shown = self.ps()
        return {
            **self.environment,
            "TUNDISH_DATABASE_URL": shown["postgres"]["url"],
            "TUNDISH_REDIS_URL": shown["valkey"]["url"],
            "TUNDISH_BLOB_URL": f"file://{self.folder}/blobs",
            **settings,
        }

    def ps(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in rows(self.folder)}

    def client(self, key: str = "") -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, timeout=70, headers=headers, trust_env=False)
