"""One version of a model, as its worker describes it and the catalog keeps it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Version:
    """Types are content types; schemas are JSON Schema 2020-12, None for what is not JSON; `max_wait` and `timeout` are
    seconds; `artifact` names its weights, None where they come with the code. `workers` serve it now: each an id, pool
    and device."""

    model: str
    version: str
    pool: str
    input_type: str
    output_type: str
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    max_batch: int
    max_wait: float
    max_cost: int | None = None
    timeout: float | None = None
    example: Any = None
    artifact: str | None = None
    workers: Sequence[dict[str, str]] = ()
