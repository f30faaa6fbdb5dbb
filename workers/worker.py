"""One worker process: its parts, what ties them together, and the order in which they start and stop."""

import gc
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID

from tundish import store
from tundish.artifact import Cache
from tundish.blobs import Blobs
from tundish.catalog import Served, checked, describe
from tundish.ids import to_text
from tundish.model import Model
from tundish.settings import Settings
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
from workers.reload import Reload
from workers.run import Pipeline, Tools
from workers.share import HOME, Share
from workers.shelf import Shelf
from workers.turn import Policy

log = logging.getLogger(__name__)

#: The part of the machine's memory that models which made room may take in all its workers, where no setting says.
HOST_SHARE = 0.25


class CannotStart(Exception):
    """Why a worker cannot serve, and what to do."""


class Worker:
    """Serves `served`, the models of its pool, or those of `reloaded`; `policy` decides which of them are on the
    device."""

    def __init__(
        self,
        id: UUID,
        settings: Settings,
        served: Sequence[Served],
        blobs: Blobs,
        device: gpu.Device,
        policy: Policy,
        reloaded: Reload | None,
    ) -> None:
        self._id = id
        self._settings = settings
        self._served = served
        self._device = device
        self._reloaded = reloaded
        self._bounds = growth.Bounds(settings.max_jobs, settings.max_rss, settings.max_device_memory)
        self._ends: list[int] = []  # why this process ends by itself

        url, pool = settings.database_url, settings.pool
        self._engine = store.engine(url)
        self._kept = store.Kept(store.engine(url, by_ids=True, autocommit=True))
        self._client = connect.redis_client(settings.redis_url)
        telling = connect.redis_client(settings.redis_url, patience=1)  # what may be lost is not worth more

        limits = {Target.of(each.model): Limits.of(each.model) for each in served}
        self._consumers = Consumers(limits)
        # Workers of two installations do not meet on a CPU.
        meeting = f"{device.name}-{sha256(url.encode()).hexdigest()[:16]}"
        self._share = share = Share(device, meeting, settings.device_memory or math.inf)
        self._shelf = shelf = Shelf(
            served,
            device,
            Cache.of(settings, blobs),
            share,
            host_budget=lambda: settings.host_memory or HOST_SHARE * gpu.host_memory() / (1 + share.others.workers),
            follow=lambda targets: self._consumers.follow(targets, "rest"),
            policy=policy,
        )
        self._intake = Intake(Batcher(limits), self._client, self._consumers, shelf)
        self._elsewhere = Elsewhere(self._engine, id, pool, settings.lease, shelf.stock.hopeless, self._leave)
        pace = Pace(time.monotonic())
        tools = Tools(
            worker=id,
            settings=settings,
            engine=self._engine,
            by_ids=store.engine(url, by_ids=True),
            kept=self._kept,
            client=self._client,
            notify=Notifier(telling),
            events=Events(telling, settings.retention),
            blobs=blobs,
            shelf=shelf,
            device=device,
            elsewhere=self._elsewhere,
            pace=pace,
        )
        self._pipeline = Pipeline(tools, self._intake, on_failure=lambda: self._end(exits.BROKEN))
        idle, memory = self._pipeline.idle, self._memory
        self._presence = Presence(id, pool, settings.device, shelf.stock.able, shelf.stock.places, idle, pace, memory)
        self._heart = Heart(self._engine, self._presence, self._pipeline.renewable, settings.lease, self._register)
        self._pauses = Pauses(self._engine, self._client, pool, lambda: shelf.stock.models, self._intake.pause)

    def run(self) -> int:
        """Serve until told to stop; the exit status: 0, or one of `exits`. Raises CannotStart."""
        # Nothing is claimed yet: a model that is being loaded is not waited for.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(self._status()))
        self._fill()
        self._register()
        app.heed(self._close)
        self._start()
        log.info("serving %s", ", ".join(self._presence().models), extra={"worker": to_text("wrk", self._id)})
        listens = reload.LISTENS if self._reloaded else app.BRPOP_TIMEOUT
        name = f"{self._settings.pool}-{self._id.hex[-8:]}"
        if not app.run(app.make(self._settings.redis_url, self._intake, listens), name):
            self._close()
            self._ends.append(exits.BROKEN)
        return self._stop()

    # How it starts.

    def _fill(self) -> None:
        """The models that fit are on the device. Raises CannotStart."""
        try:
            self._share.open()
        except OSError as error:
            raise CannotStart(f"workers cannot meet in {HOME}: {error}") from error
        self._share.watch(lambda: self._shelf.changed())
        self._pipeline.start()
        self._pipeline.filled.wait()
        if past := self._bounds.past(0, growth.rss(), self._shelf.stock.taken()):
            raise CannotStart(f"with its models loaded, and no job run, {past}; set it higher")

    def _register(self) -> None:
        """The catalog knows what is served."""
        with self._engine.begin() as connection:
            changed = store.register(connection, [describe(each) for each in self._served])
        for version in changed:
            log.warning(
                "%s@%s was known with another schema or artifact: give what has changed a new version number",
                version.model,
                version.version,
            )

    def _start(self) -> None:
        """All that runs beside the pipeline."""
        if self._reloaded:
            self._reloaded.start(self._exchange)
        self._heart.start()
        self._pauses.start()
        self._elsewhere.start()
        gpu.guard(self._device, self._lose)
        growth.watch(self._bounds, lambda: self._pipeline.jobs, self._shelf.stock.taken, lambda: self._end(exits.GROWN))
        Ears(self._client, self._intake, self._pipeline.idle)
        gc.freeze()  # the models and torch are looked at no more: each look stopped the device

    # What happens to it.

    def _exchange(self, models: Sequence[type[Model[Any, Any]]]) -> None:
        """These are served from now on, and no others. Raises what a load raises."""
        others = checked(Served(model, self._settings.pool) for model in models)
        self._pipeline.between(lambda: self._intake.exchange(self._shelf.load(others)))
        self._served = others
        reload.publish(self._engine, self._client, others)
        self._heart.beat()

    def _leave(self, targets: frozenset[Target]) -> None:
        """Other workers have these."""
        self._consumers.follow(self._consumers.targets - targets, "elsewhere")

    def _lose(self, fault: str) -> None:
        """The device is gone."""
        log.critical("the device %s is gone: %s", self._device.name, fault)
        self._pipeline.lose()
        self._heart.drain("lost")
        self._end(exits.LOST)

    def _memory(self) -> tuple[int, int] | None:
        # A device that is gone may hang whoever asks.
        return None if self._pipeline.lost else self._shelf.stock.memory()

    # How it ends.

    def _end(self, status: int) -> None:
        """By itself, as if it was told to."""
        self._ends.append(status)
        os.kill(os.getpid(), signal.SIGTERM)

    def _close(self, **_: object) -> None:
        """No batch is claimed from now on."""
        self._intake.close()
        self._heart.drain()
        # Celery's loop may wait for nothing. By a thread: the signal that called this may have come within the loop.
        threading.Thread(target=self._consumers.soon, name="wake", daemon=True).start()

    def _stop(self) -> int:
        """What runs ends and is recorded, or goes back; the exit status."""
        pipeline = self._pipeline
        # A second interrupt does not wait for the running batch: its lease runs out, and another worker has its jobs.
        signal.signal(signal.SIGINT, lambda *_: os._exit(exits.INTERRUPTED))
        self._pauses.stop()
        ended = pipeline.stop(self._settings.grace)
        self._heart.stop("lost" if pipeline.lost else "stopped")
        if pipeline.lost:
            logging.shutdown()
            os._exit(exits.LOST)  # nothing more may be asked of the device, not even to free its memory
        if ended:  # or a batch may still run on them
            self._shelf.close()
            self._kept.close()
        self._share.close()
        log.info("stopped")
        return self._status()

    def _status(self) -> int:
        """What this process ends with."""
        if self._pipeline.lost:
            return exits.LOST
        return exits.BROKEN if self._pipeline.broken else (self._ends or [0])[0]
