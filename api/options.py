"""What a caller may say about a job beside its model and input; read from a body or from query parameters."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from tundish import outbound
from tundish.errors import Refused
from tundish.job import Priority
from tundish.pointers import UNKNOWN, escape, fault_of
from tundish.settings import LONGEST, Network
from tundish.webhooks import EVENTS

#: Seconds that a job may wait for its start, unless it says otherwise.
EXPIRES_IN = 86400.0

Seconds = Annotated[float, Meta(gt=0, le=LONGEST, description="seconds")]

ExpiresIn = Annotated[Seconds, Meta(description=f"seconds to wait for its start; {EXPIRES_IN:g} if left out")]
Timeout = Annotated[Seconds, Meta(description="seconds of its predict; its model's if left out")]
StickyKey = Annotated[str, Meta(min_length=1, max_length=256, description="draws one version of an alias")]

PriorityName = Literal["low", "normal", "high"]


class Options(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The options of a job."""

    webhook: Annotated[str, Meta(max_length=2048, description="gets the job's terminal event")] | None = None
    priority: PriorityName = "normal"
    expires_in: ExpiresIn | None = None
    timeout: Timeout | None = None
    sticky_key: StickyKey | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16, description="is shown with the job, and found by")] = {}

    @property
    def rank(self) -> Priority:
        return Priority[self.priority.upper()]


#: What a field takes where that is one of a few words: msgspec does not say.
CHOICES: dict[str, tuple[str, ...]] = {"priority": get_args(PriorityName), "events": EVENTS}

#: Where the input of a job may come from.
SOURCES = ("input", "input_url", "upload")

ModelName = Annotated[str, Meta(description="name, name@version or name:alias")]


class Submit(Options, kw_only=True):
    """The body of `POST /v1/jobs`: exactly one of `input`, `input_url` and `upload`. `input` is carried bit for bit."""

    model: ModelName
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input_url: Annotated[str, Meta(max_length=2048, description="the worker fetches the input")] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    upload: Annotated[str, Meta(description="the id of an upload that holds the input")] | msgspec.UnsetType = (
        msgspec.UNSET
    )

    @property
    def source(self) -> str:
        """The name of the field that says where the input is. Raises Refused."""
        given = [name for name in SOURCES if getattr(self, name) is not msgspec.UNSET]
        if not given:
            raise _refused(f"/{SOURCES[0]}", f"is required, or in its place {' or '.join(SOURCES[1:])}")
        if len(given) > 1:
            raise _refused(f"/{given[1]}", f"stands beside {given[0]}; send one of {', '.join(SOURCES)}")
        return given[0]


class SubmitBatch(Options, kw_only=True):
    """The body of `POST /v1/jobs:batch`: the options are for all inputs."""

    model: ModelName
    inputs: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=10000)]


class Rules:
    """Checks of options that a type cannot say."""

    def __init__(self, retention: float, allowed: Sequence[Network]) -> None:
        self._retention = retention
        self._allowed = allowed

    def expires_in(self, options: Options) -> float:
        """The seconds to wait, at most the retention. Raises Refused."""
        if options.expires_in is None:
            return min(EXPIRES_IN, self._retention)
        if options.expires_in > self._retention:
            raise _refused("/expires_in", f"at most the retention, {self._retention:g} seconds")
        return options.expires_in

    def check_url(self, field: str, url: str) -> None:
        """Whether we may be sent to the URL in a field, as far as it says so itself. Raises Refused."""
        try:
            outbound.acceptable(url, self._allowed)
        except outbound.Refused as error:
            raise _refused(f"/{field}", str(error)) from error

    def check(self, options: Options) -> None:
        """Raises Refused."""
        if options.webhook is not None:
            self.check_url("webhook", options.webhook)
        if "\0" in (options.sticky_key or ""):
            raise _refused("/sticky_key", "holds a NUL character")
        if not options.metadata:
            return
        sizes = [(len(key.encode()), len(value.encode())) for key, value in options.metadata.items()]
        if any(not 0 < key <= 64 for key, _ in sizes):
            raise _refused("/metadata", "a key has 1 to 64 bytes")
        if sum(key + value for key, value in sizes) > 2048:
            raise _refused("/metadata", "at most 2 KiB in all")


def from_query(pairs: Iterable[tuple[str, str]]) -> Options:
    """Options of query parameters: `priority=high&metadata.user=7`. Raises Refused."""
    given: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, value in pairs:
        into, key = (metadata, name[9:]) if name.startswith("metadata.") else (given, name)
        if key in into:
            raise _refused(f"/{escape(name)}", "is given twice")
        into[key] = value
    if metadata:
        if "metadata" in given:
            raise _refused("/metadata", "is given as metadata.KEY=VALUE")
        given["metadata"] = metadata
    try:
        return msgspec.convert(given, Options, strict=False)
    except msgspec.ValidationError as error:
        raise unfit(error, given) from error


def unfit(error: msgspec.ValidationError, value: object, of: str = "a job") -> Refused:
    """The problem of a body or query, whose value does not fit its type, that of a job or of something else."""
    message, pointer = fault_of(error, value)
    if message.startswith(UNKNOWN):
        name = message.removeprefix(UNKNOWN).removesuffix("`")
        return _refused(f"{pointer}/{escape(name)}", f"is not a field of {of}")
    if message.startswith("Object missing required field `"):
        name = message.removeprefix("Object missing required field `").removesuffix("`")
        return _refused(f"{pointer}/{name}", "is required")
    if message.startswith("Invalid enum value "):
        [_, field, *_] = pointer.split("/")
        given = message.removeprefix("Invalid enum value ")
        return _refused(pointer, f"{given} is none of {', '.join(CHOICES[field])}")
    return _refused(pointer, message[:1].lower() + message[1:])


def _refused(pointer: str, detail: str) -> Refused:
    return Refused("invalid_request", f"{pointer or 'the body'}: {detail}", [{"pointer": pointer, "detail": detail}])


def metadata_json(metadata: Mapping[str, str]) -> bytes | None:
    return msgspec.json.encode(metadata) if metadata else None
