"""Server-sent events as a browser reads them (HTML Living Standard, 9.2.6), for tests."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx


class Event(NamedTuple):
    id: str
    event: str
    data: Any

    @property
    def piece(self) -> Any:
        return self.data["piece"]


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """The events of lines; comments are passed over, and so is one that has no empty line behind it yet."""
    fields: dict[str, str] = {}
    for line in lines:
        line = line.rstrip("\r\n")
        if not line:
            if fields:
                yield Event(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in fields:
            value = f"{fields['data']}\n{value}"
        if name:
            fields[name] = value


@contextmanager
def follow(client: httpx.Client, id: str, last: str = "") -> Iterator[Iterator[Event]]:
    """The events of a job, as they come."""
    headers = {"last-event-id": last} if last else {}
    with client.stream("GET", f"/v1/jobs/{id}/events", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield parse(answer.iter_lines())


def all_events(client: httpx.Client, id: str, last: str = "") -> list[Event]:
    """The events of a job to its end."""
    with follow(client, id, last) as events:
        return list(events)
