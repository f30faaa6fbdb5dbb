"""`python -m workers`: one worker process, which puts its pool's models on its device and serves their queues.

`--reload FILE`, for development, serves the models of one file, and again whenever it is saved.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tundish import logs, store
from tundish.blobs import open_blobs
from tundish.catalog import CatalogError, Served, load_models
from tundish.settings import SettingError, Settings
from workers import exits, gpu
from workers.batch import Target
from workers.heart import Heart
from workers.pace import Pace
from workers.presence import Presence
from workers.quarantine import Quarantine
from workers.reload import Reload
from workers.turn import Policy, turn
from workers.worker import CannotStart, Worker

#: Seconds that a thread may hold the GIL while another waits: at Python's 5 ms a stage that comes back from Postgres
#: waited as long as its statement took (11 % of the no-op drain).
SWITCH = 0.0005


def main(named: Callable[[str], gpu.Device] = gpu.named, policy: Policy = turn, reloaded: Reload | None = None) -> int:
    """`named` gives the device of a name, `policy` decides which models are on it; those of `reloaded` are served in
    place of those that the settings name. The exit status: 0 after a stop that was asked for, 2 where the worker cannot
    start, else one of `exits`."""
    # Process 1, as a container's is, is not even told of a signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
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
        quarantine = Quarantine.of(os.environ)
        if fault := device.probe():
            print(f"worker: the device {device.name} cannot be used: {fault}; see TUNDISH_DEVICE", file=sys.stderr)
            return quarantine.hold(_lost(quarantine, settings, served))
        return Worker(quarantine.worker, settings, served, blobs, device, policy, reloaded).run()
    except (SettingError, CatalogError, CannotStart) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    except store.StoreError as error:
        print(f"worker: Postgres does not take what it serves: {error}", file=sys.stderr)
        return exits.BROKEN


def _lost(quarantine: Quarantine, settings: Settings, served: Sequence[Served]) -> Heart:
    """That of a worker without a device."""
    targets = [Target.of(each.model) for each in served]
    nowhere = {str(each): {"place": "nowhere", "bytes": None, "error": None} for each in targets}
    presence = Presence(
        quarantine.worker,
        settings.pool,
        settings.device,
        models=lambda: targets,
        places=lambda: nowhere,
        idle=lambda: True,
        pace=Pace(time.monotonic()),
    )
    engine, nothing = store.engine(settings.database_url), lambda: None  # its models have not shown that they load
    return Heart(engine, partial(presence, "lost"), list, settings.lease, nothing)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workers")
    parser.add_argument(
        "--reload", type=Reload.of, metavar="FILE", help="serve the models of one file, for development"
    )
    sys.exit(main(reloaded=parser.parse_args().reload))
