"""`python -m workers`: one worker process, which loads its pool's models on its device and serves their queues."""

import logging
import os
import signal
import socket
import sys
import time
import warnings
from pathlib import Path

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import worker_shutting_down

from tundish import logs, store
from tundish.blobs import Blobs, open_blobs
from tundish.catalog import CatalogError, Served, load_models
from tundish.ids import new_uuid, to_text
from tundish.settings import SettingError, Settings
from workers import app, connect
from workers.batch import Batcher, Limits
from workers.ears import Ears
from workers.events import Events
from workers.heart import Heart
from workers.intake import Intake
from workers.load import load
from workers.pace import Pace
from workers.pauses import Pauses
from workers.presence import Presence
from workers.run import Bench, Pipeline

log = logging.getLogger("workers")

#: Seconds that a thread may hold the GIL while another waits: at Python's 5 ms a stage that comes back from Postgres
#: waited as long as its statement took (11 % of the no-op drain).
SWITCH = 0.0005
#: The exit status of a worker that was interrupted twice, as shells have it.
INTERRUPTED = 130


def main() -> int:
    sys.setswitchinterval(SWITCH)
    try:
        settings = Settings.from_environment()
        logs.configure(settings.log_format, settings.log_level)
        served = [each for each in load_models(settings.models, Path.cwd()) if each.pool == settings.pool]
        if not served:
            raise SettingError(f"no model is in pool {settings.pool!r}; set TUNDISH_MODELS, or TUNDISH_POOL")
        blobs = open_blobs(settings)
    except (SettingError, CatalogError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    return _serve(settings, served, blobs)


def _serve(settings: Settings, served: list[Served], blobs: Blobs) -> int:
    worker = new_uuid()
    engine = store.engine(settings.database_url)
    client = connect.redis_client(settings.redis_url)
    loaded = {target: each for target, each in (load(one, settings.device) for one in served)}
    with engine.begin() as connection:
        store.register(connection, [each.version for each in loaded.values()])
    limits = {target: Limits(each.version.max_batch, each.version.max_wait) for target, each in loaded.items()}
    intake = Intake(Batcher(limits), client)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    pace = Pace(time.monotonic())
    by_ids = store.engine(settings.database_url, by_ids=True)
    events = Events(connect.redis_client(settings.redis_url, patience=1), settings.retention)
    bench = Bench(worker, settings, engine, by_ids, client, events, blobs, loaded, pace)
    pipeline = Pipeline(bench, intake, on_failure=stop)
    presence = Presence(worker, settings.pool, settings.device, lambda: loaded, pipeline.idle, pace)
    heart = Heart(engine, presence, pipeline.alive, settings.lease)
    heart.start()
    pauses = Pauses(engine, client, settings.pool, lambda: loaded, intake.pause)
    pauses.start()
    pipeline.start()
    Ears(client, intake, pipeline.idle)
    log.info("serving %s", ", ".join(presence().models), extra={"worker": to_text("wrk", worker)})
    _consume(app.make(settings.redis_url, intake, loaded), f"{settings.pool}-{worker.hex[-8:]}", intake, heart)
    # A second interrupt does not wait for the running batch: its lease runs out, and another worker has its jobs.
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    pauses.stop()
    pipeline.stop(settings.grace)
    heart.stop()
    for each in loaded.values():
        each.model.unload()
    log.info("stopped")
    return 1 if pipeline.broken else 0


def _consume(application: Celery, name: str, intake: Intake, heart: Heart) -> None:
    """Let Celery feed the intake until SIGTERM or SIGINT; from the signal on, no batch is claimed."""

    def close(**_: object) -> None:
        intake.close()
        heart.drain()

    worker_shutting_down.connect(close)
    # It warns of pickle under root; JSON alone is accepted here.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = application.Worker(
        hostname=f"{name}@{socket.gethostname()}",
        pool="solo",
        without_gossip=True,
        without_mingle=True,
        task_events=True,
        loglevel=None,
        quiet=True,
    )
    worker.start()


if __name__ == "__main__":
    sys.exit(main())
