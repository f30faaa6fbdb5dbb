"""A job's states, its moves between them, and its error codes: the only place that lists them."""

import json
from enum import IntEnum, StrEnum


class Status(IntEnum):
    """What a row's `status` column holds."""

    QUEUED = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELED = 4

    @property
    def terminal(self) -> bool:
        return self >= Status.SUCCEEDED


class Priority(IntEnum):
    """Smaller is served first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


MOVES: dict[tuple[Status, Status], str] = {
    (Status.QUEUED, Status.RUNNING): "claim",
    (Status.QUEUED, Status.CANCELED): "cancel",
    (Status.QUEUED, Status.FAILED): "expire",
    (Status.RUNNING, Status.QUEUED): "release, or the lease ran out",
    (Status.RUNNING, Status.SUCCEEDED): "record",
    (Status.RUNNING, Status.FAILED): "record, or quarantine",
    (Status.RUNNING, Status.CANCELED): "let go",
}


class Code(StrEnum):
    """Why a job failed: the `code` of its error."""

    INVALID_INPUT = "invalid_input"
    REJECTED = "rejected"
    MODEL_ERROR = "model_error"
    MODEL_LOAD_FAILED = "model_load_failed"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    EXPIRED = "expired"
    WORKER_LOST = "worker_lost"
    INPUT_UNAVAILABLE = "input_unavailable"
    OUTPUT_INVALID = "output_invalid"


#: Codes after which the same job may well succeed when it is submitted again.
RETRYABLE = {
    Code.MODEL_LOAD_FAILED,
    Code.OUT_OF_MEMORY,
    Code.TIMEOUT,
    Code.EXPIRED,
    Code.WORKER_LOST,
    Code.INPUT_UNAVAILABLE,
}


#: Letters of an error's message, and of its details as JSON: a longer text is cut, and longer details are left out.
MESSAGE = 16384


def diagram() -> str:
    """The states and moves as a Mermaid state diagram, the one in ARCHITECTURE.md."""
    lines = ["stateDiagram-v2", "    [*] --> queued: submit"]
    lines += [f"    {a.name.lower()} --> {b.name.lower()}: {label}" for (a, b), label in MOVES.items()]
    lines += [f"    {status.name.lower()} --> [*]" for status in Status if status.terminal]
    return "\n".join(lines)


def error_json(code: StrEnum, message: str, details: dict[str, object] | None = None) -> bytes:
    """The `error` of a job, or of a line of a batch file, as JSON."""
    # Half of a surrogate, which a model's exception may say, is spelled out: as an escape of JSON it is none.
    cut = message if len(message) <= MESSAGE else message[:MESSAGE] + " …"
    spelled = cut.encode("utf-8", "backslashreplace").decode()
    error: dict[str, object] = {"code": code.value, "message": spelled, "retryable": code in RETRYABLE}
    if details and len(json.dumps(details)) <= MESSAGE:
        error["details"] = details
    return json.dumps(error, ensure_ascii=False).encode("utf-8", "replace")  # no error may be in its own way
