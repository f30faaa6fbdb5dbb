"""A running system whose every process the test holds, so that it can kill, stop, cut and start what it likes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from local import embed
from local.http import free_port
from local.place import Place
from migrations import release
from tests.chaos.ledger import Ledger
from tests.chaos.proxy import Proxy
from tests.local import TREE, wait_until


@dataclass
class Part:
    """A process that is started again when it dies, unless it is held down."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    down: bool = False
    written: int = 0  # bytes of its log that earlier runs wrote
    process: "subprocess.Popen[bytes]" = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._spawn()

    def start(self) -> None:
        self.down = False
        self.keep()

    def keep(self) -> None:
        """Start it where it does not run, and is not held down."""
        with self._lock:
            if not self.down and self.process.poll() is not None:
                self._spawn()

    def _spawn(self) -> None:
        self.written = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.log.parent,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends it; it is started again at once, or by `start` where it is held down."""
        process = self.process
        process.send_signal(number)
        process.wait()

    def tree(self) -> list[psutil.Process]:
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """None of its processes runs within the block."""
        tree = self.tree()
        _tell(tree, psutil.Process.suspend)
        try:
            yield
        finally:
            _tell(tree, psutil.Process.resume)


def _tell(processes: Sequence[psutil.Process], verb: Callable[[psutil.Process], None]) -> None:
    """All of them but those that are at their end: their parent waits for them once it runs itself."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            verb(process)


class Rig:
    """Postgres, Valkey behind a proxy, the API behind another, workers and chores, a `courier` too where it is wanted;
    `settings` go to all of them, and `launcher` is the module that runs theirs, where it is given."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
        workers: int = 2,
        courier: bool = False,
    ) -> None:
        self.place = Place(folder)
        self.executed = Ledger(folder / "executed")
        self.accepted = Ledger(folder / "accepted")
        self._stopping = threading.Event()
        self.parts: dict[str, Part] = {}
        postgres, valkey = embed.postgres(self.place), embed.valkey(self.place)
        self.database_url = postgres.url or ""
        self.redis_url = valkey.url or ""
        port = free_port()
        self.redis = Proxy(lambda: _unix(self.place.run / "valkey.sock"))
        self.http = Proxy(lambda: socket.create_connection(("127.0.0.1", port)))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TUNDISH_")},
            "PYTHONPATH": str(TREE),
            "TUNDISH_DATABASE_URL": self.database_url,
            "TUNDISH_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "TUNDISH_BLOB_URL": f"file://{folder}/blobs",
            "TUNDISH_SECRET": "chaos",
            "TUNDISH_PORT": str(port),
            "TUNDISH_MODELS": "tests.chaos.models:Worked",
            "TUNDISH_LEASE": "2",
            "TUNDISH_GRACE": "5",
            "TUNDISH_INLINE_MAX": "64",  # results are blobs
            "TUNDISH_LOG_FORMAT": "text",
            "CHAOS_LEDGER": str(folder / "executed"),
            "CHAOS_FUSES": str(folder / "fuses"),
            **(settings or {}),
        }
        (folder / "fuses").mkdir()
        (folder / "blobs").mkdir()
        self._add("postgres", postgres.command)
        wait_until(lambda: embed.answers(self.database_url), "Postgres answers")
        embed.create_database(self.database_url)
        release(self.database_url)
        self._add("valkey", valkey.command)
        for name, module in (
            ("api", "api"),
            ("chores", "workers.chores"),
            *((f"worker-{number}", "workers") for number in range(workers)),
            *([("courier", "workers.courier")] if courier else []),
        ):
            self._add(name, [sys.executable, "-P", "-m", *launcher, module])
        self._keeping = threading.Thread(target=self._keep, daemon=True)
        self._keeping.start()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        self.cut_client = httpx.Client(base_url=f"http://127.0.0.1:{self.http.port}", timeout=30, trust_env=False)
        wait_until(self.ready, "the API is ready", 60)

    def fuse(self, boundary: str) -> Path:
        """Lit by writing this file, burnt when it is gone: see `tests.chaos.fuse`."""
        return self.place.root / "fuses" / boundary

    def wait_for_fuse(self, boundary: str) -> None:
        """Until it is burnt."""
        wait_until(lambda: not self.fuse(boundary).exists(), f"a process came to {boundary}", 60)

    @property
    def workers(self) -> list[Part]:
        return [part for name, part in self.parts.items() if name.startswith("worker")]

    def ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return self.client.get("/readyz").status_code == 200 and bool(self.client.get("/v1/models").json()["data"])
        return False

    def wipe_redis(self) -> None:
        """Kill Valkey and all that it knew; it stays away until `start`."""
        valkey = self.parts["valkey"]
        valkey.down = True
        valkey.kill()
        shutil.rmtree(self.place.root / "valkey")
        (self.place.root / "valkey").mkdir(mode=0o700)

    def tasks(self) -> dict[str, int]:
        """How often each token was executed."""
        counted: dict[str, int] = {}
        for token, _ in self.executed.lines():
            counted[token] = counted.get(token, 0) + 1
        return counted

    def executions(self, token: str) -> list[int]:
        """The process ids of the workers that ran a token, in order; waits for the first."""
        return wait_until(
            lambda: [int(pid) for each, pid in self.executed.lines() if each == token] or None, f"{token} began", 60
        )

    def wait_for_end(self, id: str, timeout: float = 60) -> None:
        wait_until(lambda: self.client.get(f"/v1/jobs/{id}").json()["finished_at"], f"{id} ended", timeout)

    def wait_for_executions(self, more_than: int) -> None:
        wait_until(lambda: len(self.executed.lines()) > more_than, "more were executed")

    def refused(self, worker: Part) -> int:
        """How often a worker was told that its results came too late."""
        return worker.log.read_text().count("came too late")

    def wait_for_refusal(self, worker: Part, more_than: int) -> None:
        wait_until(lambda: self.refused(worker) > more_than, "the late result was refused")

    def wait_for_line(self, part: Part, words: str) -> None:
        """Until the newest run of a process has logged `words`."""
        wait_until(lambda: words in part.log.read_text()[part.written :], f"{part.name}: {words}")

    def close(self) -> None:
        self._stopping.set()
        self._keeping.join()
        for part in reversed(self.parts.values()):
            part.down = True
            with suppress(psutil.NoSuchProcess):
                _tell(part.tree(), psutil.Process.resume)
            if part.process.poll() is None:
                part.process.send_signal(signal.SIGINT if part.name == "postgres" else signal.SIGKILL)
                part.process.wait()
        for proxy in (self.redis, self.http):
            proxy.close()
        self.client.close()
        self.cut_client.close()
        self.place.close()

    def _add(self, name: str, command: Sequence[str]) -> None:
        self.parts[name] = Part(name, command, self.environment, self.place.log(name))

    def _keep(self) -> None:
        while not self._stopping.wait(0.1):
            for part in self.parts.values():
                part.keep()


def _unix(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection
