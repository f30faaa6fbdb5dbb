"""What a careful client does with a batch file, and what it holds its two files against."""

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from uuid import uuid4

import httpx
import psycopg

from tests.chaos.rig import Rig
from tests.local import wait_until
from tundish.ids import from_text


@dataclass
class File:
    """A batch that was acknowledged, and the tokens of its lines, which are their custom ids too."""

    id: str
    tokens: list[str]


def send(rig: Rig, lines: int, **options: object) -> File:
    """Upload and submit with a key until it is acknowledged."""
    tokens = [uuid4().hex for _ in range(lines)]
    body = "".join(json.dumps({"custom_id": token, "input": {"token": token}}) + "\n" for token in tokens).encode()
    made = _until(rig, 201, "POST", "/v1/uploads", json={"content_type": "application/jsonl", "size": len(body)})
    _until(rig, 200, "PUT", made["url"], content=body, headers=made["headers"])
    asked = {"model": "worked", "upload": made["id"], **options}
    key = {"Idempotency-Key": uuid4().hex}
    return File(_until(rig, 201, "POST", "/v1/batches", json=asked, headers=key)["id"], tokens)


def _until(rig: Rig, status: int, method: str, path: str, **more: Any) -> dict[str, Any]:
    while True:
        with suppress(httpx.TransportError):
            answer = rig.client.request(method, path, **more)
            if answer.status_code == status:
                return answer.json() if answer.content else {}
            assert answer.status_code in (409, 503), answer.text
        threading.Event().wait(0.1)


def seen(rig: Rig, file: File) -> dict[str, Any]:
    """The batch, on whichever try."""
    return _until(rig, 200, "GET", f"/v1/batches/{file.id}")


def wrong(rig: Rig, file: File, hooked: bool = False) -> list[str]:
    """Wait for its end, and say what is wrong then: a line is lost, one became two jobs, or its webhook was not written
    once."""
    wait_until(lambda: seen(rig, file)["finished_at"], f"{file.id} ended", 120)
    batch = seen(rig, file)
    if (batch["status"], batch["counts"]["succeeded"]) != ("succeeded", len(file.tokens)):
        return [f"{file.id} has not succeeded: {batch}"]
    outputs = [json.loads(line) for line in rig.client.get(batch["output_url"]).text.splitlines()]
    told = [(each["custom_id"], each["output"]["token"]) for each in outputs]
    with psycopg.connect(rig.database_url) as database:
        jobs = database.execute("SELECT id FROM requests WHERE batch = %s", [from_text("bat", file.id)]).fetchall()
        events = database.execute(
            "SELECT event FROM deliveries WHERE convert_from(body, 'UTF8') LIKE %s", [f"%{file.id}%"]
        ).fetchall()
    others = {id for (id,) in jobs} ^ {from_text("job", each["id"]) for each in outputs}
    found = [
        f"line {number} of its output is {is_there}, and should be {expected}"
        for number, (is_there, expected) in enumerate(zip_longest(told, [(token, token) for token in file.tokens]), 1)
        if is_there != expected
    ][:3]
    if others:
        found.append(f"{len(jobs)} jobs for {len(outputs)} lines of output, and not of both: {list(others)[:3]}")
    if events != ([("batch.succeeded",)] if hooked else []):
        found.append(f"webhooks were written of {events}")
    return [f"{file.id}: {each}" for each in found]
