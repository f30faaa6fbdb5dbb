"""Idempotency-Key: a request that is sent again gets the first one's answer, and makes no second job.

After the draft of the IETF's httpapi group: the key is a quoted string of structured fields, or bare; its scope is
tenant, method and path; the fingerprint covers body, Content-Type and query.
"""

import logging
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, TypeVar
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from api.http import content_type, header, uri_of
from api.patience import no_database
from tundish import store
from tundish.errors import BadRequest, Conflict, Refused, Unavailable
from tundish.media import JSON

T = TypeVar("T")

log = logging.getLogger(__name__)

_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')
_BARE = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]{0,254}")


class Keyed(NamedTuple):
    """A request with a key."""

    scope: store.Scope
    fingerprint: bytes


def keyed(request: Request, body: bytes) -> Keyed | None:
    """None for a request without a key. Raises BadRequest for one that is none."""
    given = header(request, b"idempotency-key")
    if not given:
        return None
    key = _key(given[0].strip()) if len(given) == 1 else None
    if key is None:
        detail = "Idempotency-Key is one string of 1 to 255 visible ASCII characters, quoted or bare"
        raise BadRequest("invalid_idempotency_key", detail)
    covered = (body, content_type(request).encode(), request.url.query.encode())
    # The length before each part: no two requests run together to the same bytes.
    fingerprint = sha256(b"".join(b"%d:%b" % (len(part), part) for part in covered)).digest()
    return Keyed(store.Scope(request.state.tenant, request.method, uri_of(request.scope["path"]), key), fingerprint)


def _key(text: str) -> str | None:
    if quoted := _QUOTED.fullmatch(text):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
        return key if len(key) <= 255 else None
    return text if _BARE.fullmatch(text) else None


class Once:
    """Stores jobs or a batch together with the answer that repeats of their request get."""

    def __init__(self, engine: store.AsyncEngine, public_url: str, retention: float) -> None:
        self._engine = engine
        self._public_url = public_url
        self._retention = retention

    async def replay(self, keyed: Keyed) -> Response | None:
        """The first answer; None where there was none. Raises Refused for another request under the same key."""
        answer = await self._run(store.answer_of, keyed.scope, self._retention)
        if answer is None:
            return None
        if answer.fingerprint != keyed.fingerprint:
            detail = "this Idempotency-Key was used with another body, Content-Type or query; take a new key"
            raise Refused("idempotency_key_reused", detail)
        headers = {"idempotency-replayed": "true"}
        if answer.location:
            # Older rows hold the public URL of their time.
            headers["location"] = (self._public_url if answer.location.startswith("/") else "") + answer.location
        return Response(answer.body, answer.status, headers, JSON)

    async def submit(
        self, keyed: Keyed, jobs: Sequence[store.NewJob], show: Callable[[datetime], Response]
    ) -> tuple[Response, datetime] | None:
        """Store jobs, all or none, and the answer that `show` makes of the database's time: both; None where another
        request with this key was first. Raises Conflict where it is still in flight, and Unavailable."""
        return await self._store(keyed, store.submit_once, jobs, show)

    async def new_batch(
        self, keyed: Keyed, batch: store.NewBatch, show: Callable[[datetime], Response]
    ) -> Response | None:
        """The same for a batch: its answer."""
        stored = await self._store(keyed, store.new_batch_once, batch, show)
        return stored[0] if stored else None

    async def _store(
        self, keyed: Keyed, verb: Callable[..., bool], new: object, show: Callable[[datetime], Response]
    ) -> tuple[Response, datetime] | None:
        shown: list[tuple[Response, datetime]] = []

        def answer(at: datetime) -> store.Answer:
            response = show(at)
            shown.append((response, at))
            # Without the public URL: who deletes the job finds it by this, whatever that is by then.
            location = response.headers.get("location", "").removeprefix(self._public_url) or None
            return store.Answer(keyed.fingerprint, response.status_code, location, bytes(response.body))

        stored = await self._run(verb, keyed.scope, new, answer)
        return shown[0] if stored else None

    async def amend(self, keyed: Keyed, job: UUID, response: Response) -> None:
        """The request waited: by 202 it is answered with the job as it is by then, by 200 with the finished one. A
        repeat gets the same, the finished job while it is there."""
        if response.status_code == 202:
            await self._run(store.replace_answer, keyed.scope, bytes(response.body))
        else:
            await self._run(store.amend_answer, keyed.scope, job, bytes(response.body))

    async def _run(self, verb: Callable[..., T], *arguments: object) -> T:
        try:
            return await store.run(self._engine, verb, *arguments)
        except store.TooOld as error:
            log.error("a job cannot be stored: %s", error)
            raise Unavailable("unavailable", "the job could not be stored; try again", retry_after=1) from error
        except store.AWAY as error:
            if store.lock_timed_out(error):
                detail = "the first request with this Idempotency-Key is still being answered; send it again"
                raise Conflict("idempotency_in_flight", detail, retry_after=1) from error
            log.warning("Postgres does not answer: %s", error)
            raise no_database() from error
