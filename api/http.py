"""What the routes share: reading a request within bounds, and writing JSON and problems."""

import asyncio
import random
import re
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote
from uuid import UUID

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.options import unfit
from tundish import strictjson
from tundish.errors import BadRequest, NotFound, Problem, Refused, TooLarge, WrongType
from tundish.ids import from_text, to_text
from tundish.media import JSON, essence
from tundish.pointers import escape

T = TypeVar("T")

#: An extension of ASGI that api/wire.py offers: a message of this type is a whole answer, its status, headers and body.
WHOLE = "tundish.http.response"

#: The longest that one request waits for a job's end, in seconds.
WAIT_MAX = 60.0

#: Headers that say how a body is wrapped up, and the one word that leaves it as it is.
_AS_IT_IS = {b"content-encoding": b"identity", b"transfer-encoding": b"chunked"}

_WAIT = re.compile(r"[0-9]{1,100}(?:\.[0-9]{1,100})?")
#: Up to a comma that is not in quotes.
_PREFERENCE = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises WrongType for one that is coded, whose reader would get other bytes than were meant, and
    TooLarge as soon as it is known to be over `limit` bytes."""
    not_encoded(request)
    for length in header(request, b"content-length"):
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return b"".join(pieces)


def not_encoded(request: Request) -> None:
    """Raises WrongType."""
    for name, value in request.scope["headers"]:
        if name in _AS_IT_IS and value.strip().lower() != _AS_IT_IS[name]:
            given = f"{name.decode().title()}: {value.decode('latin-1')}"
            raise WrongType("unsupported_media_type", f"send the body as it is, not under {given}")


def _too_large(limit: int) -> TooLarge:
    return TooLarge("body_too_large", f"the body is over {limit} bytes; see TUNDISH_MAX_BODY")


def header(request: Request, name: bytes) -> list[str]:
    """The values of a header, by its name in small letters."""
    return [value.decode("latin-1") for key, value in request.scope["headers"] if key == name]


def content_type(request: Request) -> str:
    """Empty where none is given."""
    return next(iter(header(request, b"content-type")), "")


def parsed(content_type: str, body: bytes) -> object:
    """The value of a JSON body. Raises WrongType and BadRequest."""
    if essence(content_type) != JSON:
        raise WrongType("unsupported_media_type", f"send JSON, with the header Content-Type: {JSON}")
    try:
        return strictjson.loads(body)
    except strictjson.InvalidJSON as error:
        raise BadRequest("invalid_json", f"the body is not JSON as it is taken here: {error}") from error


async def json_body(request: Request, limit: int, type: type[T], of: str) -> T:
    """The body as a struct, which stands for what `of` names. Raises TooLarge, WrongType, BadRequest, Refused."""
    body = await read_body(request, limit)
    value = parsed(content_type(request), body)
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.ValidationError as error:
        raise unfit(error, value, of) from error


def job_id(request: Request) -> UUID:
    """The id in the path. Raises NotFound for a text that is none."""
    id = from_text("job", request.path_params["id"])
    if id is None:
        raise no_such_job()
    return id


def no_such_job() -> NotFound:
    return NotFound("job_not_found", "there is no such job")


def seconds(text: str, name: str) -> float:
    """A wait of the query. Raises Refused."""
    if not _WAIT.fullmatch(text):
        raise bad_query(name, "is a number of seconds")
    return min(float(text), WAIT_MAX)


def preferred_wait(request: Request) -> float | None:
    """The seconds of `Prefer: wait=N` (RFC 7240); a preference that cannot be read is no preference."""
    for preference in _PREFERENCE.findall(",".join(header(request, b"prefer"))):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait" and _WAIT.fullmatch(value.strip().strip('"')):
            return min(float(value.strip().strip('"')), WAIT_MAX)
    return None


def parameters(request: Request) -> list[tuple[str, str]]:
    """The query's parameters. Raises Refused for one that is not UTF-8."""
    given = request.scope["query_string"].decode("latin-1")
    pairs = parse_qsl(given, keep_blank_values=True, errors="surrogateescape")
    for name, value in pairs:
        try:
            f"{name}={value}".encode()
        except UnicodeEncodeError:
            raise bad_query(name, "is not UTF-8") from None
    return pairs


def known_parameters(request: Request, names: Iterable[str]) -> dict[str, str]:
    """The query's parameters. Raises Refused for one that is not in `names` (`metadata.` stands for its keys) or is
    given twice."""
    given: dict[str, str] = {}
    if not request.scope["query_string"]:
        return given
    allowed = set(names)
    for name, value in parameters(request):
        kind = "metadata." if name.startswith("metadata.") else name
        if kind not in allowed or name in given:
            detail = "is given twice" if name in given else "is not a parameter of this call"
            raise bad_query(name, detail)
        given[name] = value
    return given


def moment(given: dict[str, str], name: str) -> datetime | None:
    """A time of the query, in UTC; None where it is not given. Raises Refused."""
    if name not in given:
        return None
    try:
        at = msgspec.convert(given[name].replace(" ", "+"), datetime)
        if at.tzinfo is None:
            raise ValueError
        # Within what an id and Postgres can tell: 0001-01-01 and 9999-12-31 are some clients' words for no bound.
        return max(_FIRST, min(at, _LAST)).astimezone(UTC)
    except ValueError:
        raise bad_query(name, "is a time of RFC 3339, such as 2026-01-31T12:00:00Z") from None


def page_limit(given: dict[str, str]) -> int:
    """`limit` of the query. Raises Refused."""
    text = given.get("limit", "20")
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 100):
        raise bad_query("limit", "is a number from 1 to 100")
    return int(text)


def page_before(given: dict[str, str]) -> UUID:
    """Under which id a page begins: that of `cursor`, or any. Raises Refused."""
    if "cursor" not in given:
        return UUID(int=(1 << 128) - 1)
    cursor = from_text("cur", given["cursor"])
    if cursor is None:
        raise bad_query("cursor", "is not the next_cursor of an earlier page")
    return cursor


def page(data: Sequence[Any], next_before: UUID | None) -> Response:
    """A list's answer."""
    return encoded({"data": data, "next_cursor": next_before and to_text("cur", next_before)})


async def unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """`work`'s result, or None where the client hung up first: no server cancels a handler for that."""

    async def hang_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(hang_up())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, gone):
            if not each.done():
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each


async def answer(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response: in one message where it is all there, and the server takes it so."""
    there = type(response).__call__ is Response.__call__ and response.background is None
    if there and WHOLE in scope.get("extensions", ()):
        status, headers, body = response.status_code, response.raw_headers, response.body
        await send({"type": WHOLE, "status": status, "headers": headers, "body": body})
    else:
        await response(scope, receive, send)


class _Json(Response):
    """Writes its headers at once: Starlette's way, which looks for what is there, took as long as the body did."""

    media_type = JSON

    def __init__(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.body, self.status_code, self.background = body, status, None
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        self.raw_headers += [(name.encode(), value.encode()) for name, value in headers.items()]


def json_response(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return _Json(body, status, headers or {})


def encoded(value: Any, status: int = 200) -> Response:
    return json_response(msgspec.json.encode(value), status)


def uri_of(path: str) -> str:
    """Each path in one way, whichever its client took."""
    return quote(path, safe="/:@", errors="replace")


def new_request_id() -> str:
    return f"{random.getrandbits(64):016x}"


def problem_response(problem: Problem, path: str, request_id: str, title: str) -> Response:
    """RFC 9457."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": uri_of(path),
        "code": problem.code,
        "request_id": request_id,
        "retryable": problem.retry_after is not None,
    }
    if problem.errors:
        body["errors"] = problem.errors
    # Whatever a client sent may stand in a detail: a lone half of a surrogate must not break the answer.
    text = msgspec.json.encode(_plain(body))
    return Response(text, problem.status, problem.headers, "application/problem+json")


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def bad_query(name: str, detail: str) -> Refused:
    return Refused("invalid_request", f"{name}: {detail}", [{"pointer": f"/{escape(name)}", "detail": detail}])
