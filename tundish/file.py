"""A payload as a local file, for what must not be held in memory. The standard library alone."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class File:
    """In `class Cut(Model[File, File])`. An input lies under `path` until its result is stored, to be read and never
    written to. An output is read when predict has returned: write it to a path of `batch.file()`, which is removed once
    it is stored. `content_type` is what the caller sent, or gets; None: the model's `output_type`."""

    path: Path
    content_type: str | None = None
