"""Load: a model class becomes an instance on the device, with what reads its inputs and writes its outputs."""

import logging
import time

from tundish.catalog import Served, describe
from tundish.codec import codec_for
from tundish.model import types_of
from workers.batch import Target
from workers.predict import Loaded

log = logging.getLogger(__name__)


def load(served: Served, device: str) -> tuple[Target, Loaded]:
    """Whatever the model's `load` raises passes through."""
    version = describe(served)
    began = time.monotonic()
    model = served.model()
    model.load(device)
    log.info("loaded %s@%s on %s in %.1f s", version.model, version.version, device, time.monotonic() - began)
    reads, writes = map(codec_for, types_of(served.model))
    return Target(version.model, version.version), Loaded(model, reads, writes, version)
