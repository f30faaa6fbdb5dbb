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
            return list(pool.map(lambda _: self.one(do, client), range(count)))

    @contextmanager
    def running(self, threads: int = 4, pause: float = 0.0) -> Iterator[None]:
        """Submit all the time, `pause` seconds apart, from threads."""
        stop = threading.Event()

        def run(keyed: bool) -> None:
            while not stop.wait(pause):
                self.one(keyed=keyed)

        running = [threading.Thread(target=run, args=(number % 2 == 0,)) for number in range(threads)]
        for thread in running:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in running:
                thread.join()

    def wait_for_more(self, count: int) -> None:
        """Until `count` more than now are acknowledged."""
        wanted = len(self.jobs) + count
        wait_until(lambda: len(self.jobs) >= wanted, f"{count} more were acknowledged", 60)

    def one(
        self,
        do: str = "",
        client: httpx.Client | None = None,
        *,
        pad: str = "",
        keyed: bool = True,
        prefer: str = "",
        **options: object,
    ) -> str:
        """The id of a job that was acknowledged, on whichever try. Without a key each try is another job."""
        token = uuid4().hex
        while True:
            task = {"token": token, "do": do} | ({"pad": pad} if pad else {})
            job = {"model": "worked", "input": task, "metadata": {"token": token}, **options}
            headers = ({"Idempotency-Key": token} if keyed else {}) | ({"Prefer": prefer} if prefer else {})
            with suppress(httpx.TransportError):
                answer = (client or self.rig.client).post("/v1/jobs", json=job, headers=headers)
                if answer.status_code in (200, 202):
                    id: str = answer.json()["id"]
                    self.acknowledged(id, token)
                    return id
                assert answer.status_code in (409, 503), answer.text
                assert answer.headers["retry-after"]
            threading.Event().wait(0.1)
            if not keyed:
                token = uuid4().hex

    def acknowledged(self, id: str, token: str) -> None:
        self.rig.accepted.write(f"{id} {token}")
        self.jobs[id] = token
