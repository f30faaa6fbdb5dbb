"""`python -m workers`: one worker process, which puts its pool's models on its device and serves their queues.

`--reload FILE`, for development, serves the models of one file, and again whenever it is saved.
"""

import argparse
import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import worker_shutting_down
from celery.worker import state

from tundish import logs, store
from tundish.artifact import Cache
from tundish.blobs import Blobs, open_blobs
from tundish.catalog import CatalogError, Served, checked, describe, load_models
from tundish.ids import to_text
from tundish.model import Model
from tundish.settings import SettingError, Settings
from workers import app, connect, exits, gpu, growth, reload
from workers.batch import Batcher, Limits, Target
from workers.consume import Consumers
from workers.ears import Ears
from workers.elsewhere import Elsewhere
from workers.events import Events
from workers.heart import Heart
from workers.intake import Intake
from workers.notify import Notifier
from workers.pace import Pace
from workers.pauses import Pauses
from workers.presence import Presence
from workers.quarantine import Quarantine
from workers.reload import Reload
from workers.run import Bench, Pipeline
from workers.share import HOME, Share
from workers.shelf import Shelf
from workers.turn import Policy, turn

log = logging.getLogger("workers")

#: Seconds that a thread may hold the GIL while another waits: at Python's 5 ms a stage that comes back from Postgres
#: waited as long as its statement took (11 % of the no-op drain).
SWITCH = 0.0005
#: Seconds between two heart-beats of Celery's own, for who watches its events; at Celery's 2 s they took a third of the
#: thread that fetches.
EVENTS = 10.0
#: The part of the machine's memory that models which made room may take in all its workers, where no setting says.
HOST_SHARE = 0.25


def main(named: Callable[[str], gpu.Device] = gpu.named, policy: Policy = turn, reloaded: Reload | None = None) -> int:
    """`named` gives the device of a name, `policy` decides which models are on it; those of `reloaded` are served in
    place of those that the settings name. The exit status: 0 after a stop that was asked for, 2 where the worker cannot
    start, else one of `exits`."""
    sys.setswitchinterval(SWITCH)
    try:
        settings = Settings.from_environment()
        settings.demand("database_url", "redis_url", "blob_url")
        logs.configure(settings.log_format, settings.log_level)
        chosen = [] if reloaded else load_models(settings.models, Path.cwd())
        served = [each for each in chosen if each.pool == settings.pool]
        if not served and not reloaded:
            raise SettingError(f"no model is in pool {settings.pool!r}; set TUNDISH_MODELS, or TUNDISH_POOL")
        blobs = open_blobs(settings)
        device = named(settings.device)
    except (SettingError, CatalogError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    return _serve(settings, served, blobs, device, policy, reloaded)


def _serve(
    settings: Settings,
    served: list[Served],
    blobs: Blobs,
    device: gpu.Device,
    policy: Policy,
    reloaded: Reload | None,
) -> int:
    quarantine = Quarantine.of(os.environ)
    worker = quarantine.worker
    engine = store.engine(settings.database_url)
    pace = Pace(time.monotonic())
    if fault := device.probe():
        print(f"worker: the device {device.name} cannot be used: {fault}; see TUNDISH_DEVICE", file=sys.stderr)
        targets = [Target.of(each.model) for each in served]
        nowhere = {str(each): {"place": "nowhere", "bytes": None} for each in targets}
        lost = Presence(worker, settings.pool, settings.device, lambda: targets, lambda: nowhere, lambda: True, pace)
        return quarantine.hold(Heart(engine, partial(lost, "lost"), list, settings.lease))
    client = connect.redis_client(settings.redis_url)
    limits = {Target.of(each.model): Limits(each.model.max_batch, each.model.max_wait) for each in served}
    consumers = Consumers(limits)
    share = _share(settings, device)
    shelf = _shelf(settings, served, device, Cache.of(settings, blobs), share, consumers, policy)
    intake = Intake(Batcher(limits), client, consumers, shelf)
    ends: list[int] = []  # why this process ends by itself

    def end(status: int) -> None:
        ends.append(status)
        os.kill(os.getpid(), signal.SIGTERM)

    def lose(fault: str) -> None:
        log.critical("the device %s is gone: %s", device.name, fault)
        pipeline.lose()
        heart.drain("lost")
        end(exits.LOST)

    by_ids = store.engine(settings.database_url, by_ids=True)
    kept = store.Kept(store.engine(settings.database_url, by_ids=True, autocommit=True))
    telling = connect.redis_client(settings.redis_url, patience=1)  # what may be lost is not worth more
    events = Events(telling, settings.retention)

    def leave(targets: frozenset[Target]) -> None:
        consumers.follow(consumers.targets - targets, "elsewhere")

    elsewhere = Elsewhere(engine, worker, settings.pool, settings.lease, shelf.hopeless, leave)
    notify = Notifier(telling)
    bench = Bench(worker, settings, engine, by_ids, kept, client, notify, events, blobs, shelf, device, elsewhere, pace)
    pipeline = Pipeline(bench, intake, on_failure=lambda: end(exits.BROKEN))

    def memory() -> tuple[int, int] | None:
        return None if pipeline.lost else shelf.memory()  # a device that is gone may hang whoever asks

    presence = Presence(worker, settings.pool, settings.device, shelf.able, shelf.places, pipeline.idle, pace, memory)
    try:
        share.open()
    except OSError as error:
        print(f"worker: workers cannot meet in {HOME}: {error}", file=sys.stderr)
        return 2
    share.watch(lambda: shelf.changed())
    pipeline.start()
    pipeline.filled.wait()
    allowed = growth.Limits(settings.max_jobs, settings.max_rss, settings.max_device_memory)
    if past := allowed.past(0, growth.rss(), shelf.taken()):
        print(f"worker: with its models loaded, and no job run, {past}; set it higher", file=sys.stderr)
        return 2
    with engine.begin() as connection:
        changed = store.register(connection, [describe(each) for each in served])
    for version in changed:
        log.warning(
            "%s@%s was known with another schema or artifact: give what has changed a new version number",
            version.model,
            version.version,
        )
    heart = Heart(engine, presence, pipeline.alive, settings.lease)

    def exchange(models: Sequence[type[Model[Any, Any]]]) -> None:
        others = checked(Served(model, settings.pool) for model in models)
        pipeline.between(lambda: intake.exchange(shelf.load(others)))
        reload.publish(engine, client, others)
        heart.beat()

    def close(**_: object) -> None:
        intake.close()
        heart.drain()
        # Celery's loop may wait for nothing. By a thread: the signal that called this may have come within the loop.
        threading.Thread(target=consumers.wake, name="wake", daemon=True).start()

    _heed(close)
    if reloaded:
        reloaded.start(exchange)
    heart.start()

    pauses = Pauses(engine, client, settings.pool, lambda: shelf.models, intake.pause)
    pauses.start()
    elsewhere.start()
    gpu.guard(device, lose)
    growth.watch(allowed, lambda: pipeline.jobs, shelf.taken, lambda: end(exits.GROWN))
    Ears(client, intake, pipeline.idle)
    gc.freeze()  # the models and torch are looked at no more: each look stopped the device
    log.info("serving %s", ", ".join(presence().models), extra={"worker": to_text("wrk", worker)})
    listens = reload.LISTENS if reloaded else app.BRPOP_TIMEOUT
    _consume(app.make(settings.redis_url, intake, listens), f"{settings.pool}-{worker.hex[-8:]}")
    # A second interrupt does not wait for the running batch: its lease runs out, and another worker has its jobs.
    signal.signal(signal.SIGINT, lambda *_: os._exit(exits.INTERRUPTED))
    pauses.stop()
    ended = pipeline.stop(settings.grace)
    heart.stop("lost" if pipeline.lost else "stopped")
    if pipeline.lost:
        logging.shutdown()
        os._exit(exits.LOST)  # nothing more may be asked of the device, not even to free its memory
    if ended:  # or a batch may still run on them
        shelf.close()
        kept.close()
    share.close()
    log.info("stopped")
    return exits.BROKEN if pipeline.broken else (ends or [0])[0]


def _share(settings: Settings, device: gpu.Device) -> Share:
    """Workers of two installations do not meet on a CPU."""
    name = f"{device.name}-{sha256(settings.database_url.encode()).hexdigest()[:16]}"
    return Share(device, name, settings.device_memory or math.inf)


def _shelf(
    settings: Settings,
    served: list[Served],
    device: gpu.Device,
    cache: Cache,
    share: Share,
    consumers: Consumers,
    policy: Policy,
) -> Shelf:
    return Shelf(
        served,
        device,
        cache,
        share,
        host_budget=lambda: settings.host_memory or HOST_SHARE * gpu.host_memory() / (1 + share.others.workers),
        follow=lambda targets: consumers.follow(targets, "rest"),
        policy=policy,
    )


def _heed(close: Callable[..., None]) -> None:
    """From here on SIGTERM and SIGINT end the worker in good order: `close` is called, so that no batch is claimed any
    more. Before Celery has started its own handlers are not there yet, and it must be told at once to stop."""

    def early(*_: object) -> None:
        close()
        state.should_stop = 0  # type: ignore[assignment]  # its types know None alone

    signal.signal(signal.SIGTERM, early)
    signal.signal(signal.SIGINT, early)
    worker_shutting_down.connect(close, weak=False)


def _consume(application: Celery, name: str) -> None:
    """Let Celery feed the intake until it is told to stop."""
    # It warns of pickle under root; JSON alone is accepted here.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = application.Worker(
        hostname=f"{name}@{socket.gethostname()}",
        pool="solo",
        without_gossip=True,
        without_mingle=True,
        task_events=True,
        heartbeat_interval=EVENTS,
        loglevel=None,
        quiet=True,
    )
    worker.start()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workers")
    parser.add_argument(
        "--reload", type=Reload.of, metavar="FILE", help="serve the models of one file, for development"
    )
    sys.exit(main(reloaded=parser.parse_args().reload))
