"""`python -m workers.courier`: sends the webhooks of the outbox, at least once each, with one id and one body.

Two loops take what is due, one for fresh deliveries and one for those that are tried again; each delivery is a task of
its own; another loop writes down what came of them.
"""

import asyncio
import gc
import logging
import random
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import redis.asyncio
import uvloop

from tundish import logs, openfiles, queue, store
from tundish.ids import to_text
from tundish.settings import SettingError, Settings
from tundish.tasks import end
from workers.lanes import Kind, Lanes, Looks, Quota
from workers.post import Post
from workers.settle import Settler, attempt
from workers.verdict import Answer, Verdict, pause, verdict

log = logging.getLogger("workers.courier")

#: Seconds that a delivery is ours: the 15 s of its try, and time to write down what came of it.
LEASE = 30.0
#: Seconds between looks at the outbox while nothing is heard.
LOOK = 0.5
#: Seconds between tries while Postgres or Redis does not answer.
RETRY = 1.0
#: Seconds that the last write has at least, where the tries before a stop took all of the grace.
WRITE = 5.0
#: Deliveries that one statement takes from quick lanes, and from the others.
ROWS = 256

_FIRST_LANE = UUID(int=0)
_NOTICES = "the notice of new webhooks"
_UNWANTED = Answer(None, "not sent: the endpoint is disabled or was deleted")


class Courier:
    """One process's share of the outbox."""

    def __init__(self, engine: store.AsyncEngine, post: Post, client: redis.asyncio.Redis) -> None:
        self._engine = engine
        self._post = post
        self._client = client
        self._lanes = Lanes()
        self._settler = Settler(engine)
        self._bells = {kind: asyncio.Event() for kind in Kind}
        self._sending: set[asyncio.Task[None]] = set()
        self._outage = logs.Outage(log)

    async def run(self, stopped: asyncio.Event, grace: float) -> None:
        """Send what is due until `stopped`; what is on its way has `grace` seconds to end then, and to be written down.
        A loop that breaks is a bug: its error is raised, and what is on its way will be due again."""
        loops = [self._take(Kind.FRESH), self._take(Kind.RETRIED), self._listen(), self._settler.run()]
        tasks = [asyncio.create_task(loop) for loop in loops]
        stop = asyncio.create_task(stopped.wait())
        done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        await end([stop, *tasks])
        over = time.monotonic() + grace
        if self._sending:
            await asyncio.wait(self._sending, timeout=grace)
        with suppress(TimeoutError):  # Postgres is away
            async with asyncio.timeout(max(WRITE, over - time.monotonic())):
                await self._settler.write()
        for task in done:
            task.result()

    async def _take(self, kind: Kind) -> None:
        """Take what is due, from each lane what it has room for, and set it on its way."""
        bell, looks, after = self._bells[kind], Looks(), _FIRST_LANE
        while True:
            rung = bell.is_set()
            bell.clear()
            now = time.monotonic()
            self._lanes.forget(now)
            quota = self._lanes.quota(kind, now, ROWS)
            some = quota.quick_limit or quota.others_limit
            found, stopped = await self._due(kind, quota, after) if some else store.Taken([])
            for due in found:
                self._send(kind, due)
            others = sum(due.lane not in quota.quick for due in found)
            more = 0 < quota.quick_limit == len(found) - others
            # A walk that stopped among the lanes goes on there, so that each has its turn; at once, unless it finds
            # nothing.
            if quota.others_limit:
                more = more or (others > 0 if stopped else after != _FIRST_LANE)
                after = stopped or _FIRST_LANE
            looks.looked(found=bool(found), rung=rung, busy=self._lanes.busy(kind))
            await asyncio.sleep(looks.gap)
            if not more:
                # Not wait_for: until Python 3.12 it swallows a cancel that comes with the bell, and the loop goes on.
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await bell.wait()

    async def _due(self, kind: Kind, quota: Quota, after: UUID) -> store.Taken:
        retried = kind is Kind.RETRIED
        try:
            taken = await store.run(
                self._engine, store.take, retried=retried, after=after, lease=LEASE, **quota._asdict()
            )
        except store.AWAY as error:
            self._outage.waits("the outbox", error)
            await asyncio.sleep(RETRY)
            return store.Taken([])
        self._outage.over("the outbox")
        return taken

    def _send(self, kind: Kind, due: store.Due) -> None:
        self._lanes.began(due.lane, kind, time.monotonic())
        task = asyncio.create_task(self._deliver(kind, due))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _deliver(self, kind: Kind, due: store.Due) -> None:
        """One try, and what becomes of it."""
        at, began, answer = datetime.now(UTC), time.monotonic(), None
        try:
            if due.wanted:
                answer = await self._post.send(due)
        except Exception:
            log.exception("a delivery failed in the courier itself", extra={"delivery": to_text("whd", due.id)})
            answer = Answer(None, "a fault of the service; its log says more")
        finally:
            ended, now = time.monotonic(), time.time()
            asked = pause(answer, now) if answer else 0.0
            self._lanes.ended(due.lane, kind, answer, now=ended, took=ended - began, asked=asked)
        ruling = verdict(due.tries, answer, now=now, chance=random.random()) if answer else Verdict("dead")
        tried = attempt(at, answer or _UNWANTED, ended - began)
        settled = store.Settled(due.id, due.tries, due.give_up_at, tried, ruling.status, ruling.again_in)
        self._settler.add(settled, store.Gone(due.endpoint, due.url) if ruling.disable and due.endpoint else None)
        self._bells[kind].set()

    async def _listen(self) -> None:
        """Look soon after the ends of jobs wrote webhooks; all others, and where Redis forgets to say so, the next look
        finds."""
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(queue.OUTBOX)
                    while True:
                        message = await subscription.get_message(timeout=LOOK)
                        self._outage.over(_NOTICES)
                        if message:
                            self._bells[Kind.FRESH].set()
            except Exception as error:  # a cut connection shows as almost anything, RuntimeError of the event loop too
                self._outage.waits(_NOTICES, f"they are found by looking, Redis does not answer: {error!r}")
                await asyncio.sleep(RETRY)


async def serve(settings: Settings, stopped: asyncio.Event) -> None:
    """Run until `stopped`."""
    engine = store.async_engine(settings.database_url, 4, planned_once=True)
    client = redis.asyncio.Redis.from_url(
        settings.redis_url, socket_timeout=5, socket_connect_timeout=5, health_check_interval=15
    )
    try:
        async with Post(settings.outbound_allow) as post:
            await Courier(engine, post, client).run(stopped, settings.grace)
    finally:
        await client.aclose()
        await engine.dispose()


async def _main(settings: Settings) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    log.info("courier runs")
    await serve(settings, stopped)


def main() -> int:
    try:
        settings = Settings.from_environment()
        settings.demand("database_url", "redis_url")
    except SettingError as error:
        print(f"courier: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_format, settings.log_level)
    openfiles.allow()
    # Each delivery makes and drops hundreds of objects, none of them in cycles: collecting them so often took a tenth.
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    uvloop.run(_main(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
