"""What a bench hears over a socket."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest

from bench import webhooks
from bench.receiver import Receiver

PATIENCE = 10.0


def test_the_latest_deliveries_count_however_late_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, waits, until = Receiver(), Event(), webhooks.until

    def waited(all_came: Callable[[], bool], logs: Path) -> None:
        waits.set()
        until(all_came, logs)

    def send(late: float) -> None:
        """A body of so many seconds ago."""
        httpx.post(receiver.url("0/ok"), content=json.dumps({"at": time.time() - late}))

    def send_at_last() -> None:
        if waits.wait(PATIENCE):
            send(3.0)

    def tell() -> None:
        send(0.1)
        send(0.1)
        pool.submit(send_at_last)

    monkeypatch.setattr(webhooks, "PAUSE", 0)
    monkeypatch.setattr(webhooks, "until", waited)
    with ThreadPoolExecutor() as pool:
        assert webhooks.told(receiver, tell, rounds=2, good=3, logs=Path()) >= 3000
