"""Load: a model class becomes an instance on the device, with what reads its inputs and writes its outputs."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from tundish import execute, store
from tundish.catalog import Served, describe
from tundish.codec import Codec, codecs_of
from tundish.model import Model
from workers.batch import Target
from workers.folders import Folders

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on the device, with what decodes its inputs and encodes its outputs, and what the catalog says of it;
    `folders` where its payloads are files."""

    model: Model[Any, Any]
    reads: Codec
    writes: Codec
    version: store.Version
    folders: Folders | None = None
    ceilings: execute.Ceilings = field(default_factory=execute.Ceilings)


def load(served: Served, device: str) -> tuple[Target, Loaded]:
    """Whatever the model's `load` raises passes through."""
    version = describe(served)
    began = time.monotonic()
    model = served.model()
    model.load(device)
    log.info("loaded %s@%s on %s in %.1f s", version.model, version.version, device, time.monotonic() - began)
    reads, writes = codecs_of(served.model)
    folders = Folders() if reads.in_files or writes.in_files else None
    return Target(version.model, version.version), Loaded(model, reads, writes, version, folders)
