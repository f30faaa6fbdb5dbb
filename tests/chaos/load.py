"""What a careful client does: submit with a key until it is acknowledged, and write that down."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from uuid import uuid4

import httpx

from tests.chaos.rig import Rig
from tests.local import wait_until


class Load:
    """Submits of one scenario."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.seed = seed
        self.jobs: dict[str, str] = {}  # the token of each acknowledged id

    def submit(self, count: int, do: str = "", client: httpx.Client | None = None) -> list[str]:
        """Acknowledged ids, eight submits at a time."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda _: self._one(do, client or self.rig.client), range(count)))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Submit all the time, from a thread."""
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                self._one("", self.rig.client)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def wait_for_more(self, count: int) -> None:
        """Until `count` more than now are acknowledged."""
        wanted = len(self.jobs) + count
        wait_until(lambda: len(self.jobs) >= wanted, f"{count} more were acknowledged", 60)

    def _one(self, do: str, client: httpx.Client) -> str:
        token = uuid4().hex
        job = {"model": "worked", "input": {"token": token, "do": do}, "metadata": {"token": token}}
        while True:
            with suppress(httpx.TransportError):
                answer = client.post("/v1/jobs", json=job, headers={"Idempotency-Key": token})
                if answer.status_code == 202:
                    id: str = answer.json()["id"]
                    self.rig.accepted.write(f"{id} {token}")
                    self.jobs[id] = token
                    return id
                assert answer.status_code in (409, 503), answer.text
                assert answer.headers["retry-after"]
            threading.Event().wait(0.1)
