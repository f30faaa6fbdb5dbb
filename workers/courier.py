"""`python -m workers.courier`: sends the webhooks of the outbox, at least once each, with one id and one body.

Standard Webhooks 1.0.0: signed, a time-out of 15 s in all, 2xx alone is success, redirects are not followed.
"""

import asyncio
import logging
import random
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx

from tundish import logs, outbound, store, webhooks
from tundish.ids import to_text
from tundish.settings import SettingError, Settings
from tundish.view import rfc3339

log = logging.getLogger("workers.courier")

#: Seconds before the second and each later try (Standard Webhooks); after the last the delivery is dead.
DELAYS = [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
TIMEOUT = 15.0
LEASE = 30.0
AT_ONCE = 64
#: Seconds between looks at an empty outbox.
LOOK = 0.5
ANSWER_MAX = 65536


async def deliver(client: httpx.AsyncClient, due: store.Due, allowed: list[outbound.Network]) -> dict[str, Any]:
    """Send once. What came of it: {"at", "status_code", "error", "ms"}."""
    began = time.monotonic()
    status_code, error = None, None
    try:
        async with asyncio.timeout(TIMEOUT):
            status_code = await _post(client, due, allowed)
    except TimeoutError:
        error = f"no answer within {TIMEOUT:g} s"
    except outbound.Refused as refused:
        error = str(refused)
    except httpx.HTTPError as failed:
        error = f"the connection failed: {type(failed).__name__}"
    ms = round((time.monotonic() - began) * 1000)
    return {"at": rfc3339(datetime.now(UTC)), "status_code": status_code, "error": error, "ms": ms}


async def _post(client: httpx.AsyncClient, due: store.Due, allowed: list[outbound.Network]) -> int:
    destination = outbound.parse(due.url)
    address = await outbound.resolve(destination, allowed)
    host = f"[{address}]" if address.version == 6 else str(address)
    signed = webhooks.headers([due.secret], to_text("whd", due.id), int(time.time()), due.body)
    request = client.build_request(
        "POST",
        f"{destination.scheme}://{host}:{destination.port}{destination.path}",
        content=due.body,
        headers={"host": destination.authority, "content-type": "application/json", **signed},
        extensions={"sni_hostname": destination.host},
    )
    answer = await client.send(request, stream=True)
    try:
        read = 0
        async for piece in answer.aiter_raw():
            read += len(piece)
            if read > ANSWER_MAX:
                break
    finally:
        await answer.aclose()
    return answer.status_code


def verdict(attempt: int, status_code: int | None) -> tuple[str, float | None]:
    """What becomes of a delivery after its `attempt`th try (from 1): its status, and the seconds until the next."""
    if status_code is not None and 200 <= status_code < 300:
        return "delivered", None
    if status_code == 410 or attempt > len(DELAYS):
        return "dead", None
    return "pending", DELAYS[attempt - 1] * random.uniform(1.0, 1.2)


async def run(settings: Settings, stopped: asyncio.Event) -> None:
    """Send what is due until `stopped`, then let what is on its way end within TUNDISH_GRACE."""
    allowed = outbound.networks(settings.outbound_allow)
    engine = store.async_engine(settings.database_url)
    running: set[asyncio.Task[None]] = set()

    async def send(due: store.Due) -> None:
        attempt = await deliver(client, due, allowed)
        status, again_in = verdict(due.attempt, attempt["status_code"])
        try:
            await store.run(engine, store.settle, due.id, attempt, status, again_in)
        except store.StoreError as error:
            log.warning("a delivery will be sent again: %s", error, extra={"delivery": to_text("whd", due.id)})

    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=TIMEOUT) as client:
        while not stopped.is_set():
            found = await _due(engine, AT_ONCE - len(running))
            for due in found:
                task = asyncio.create_task(send(due))
                running.add(task)
                task.add_done_callback(running.discard)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), 0.01 if found else LOOK)
        if running:
            await asyncio.wait(running, timeout=settings.grace)
    await engine.dispose()


async def _due(engine: store.AsyncEngine, limit: int) -> list[store.Due]:
    try:
        return await store.run(engine, store.due, lease=LEASE, limit=limit)
    except store.StoreError as error:
        log.warning("the outbox has to wait: %s", error)
        return []


def main() -> int:
    try:
        settings = Settings.from_environment()
        outbound.networks(settings.outbound_allow)
    except SettingError as error:
        print(f"courier: {error}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"courier: TUNDISH_OUTBOUND_ALLOW: {error}; give networks such as 10.0.0.0/8", file=sys.stderr)
        return 2
    logs.configure(settings.log_format, settings.log_level)

    async def serve() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        log.info("courier runs")
        await run(settings, stopped)

    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
