"""The routes of `/v1/jobs`: submit, status, payloads, list, cancel, retry, delete."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, compile_path
from starlette.types import Scope

from api.blobs import INERT
from api.http import (
    bad_query,
    content_type,
    encoded,
    job_id,
    json_response,
    known_parameters,
    moment,
    no_such_job,
    page,
    page_before,
    page_limit,
    parameters,
    preferred_wait,
    read_body,
    seconds,
    unless_gone,
)
from api.once import Keyed, keyed
from api.parts import Parts
from api.patience import no_blobs, of_blobs
from api.reads import Found, told
from api.submit import Refusal, row_of
from tundish import store
from tundish.blobs import BlobError, job_prefix
from tundish.errors import Conflict, NotFound, Unavailable
from tundish.ids import floor_uuid, from_text, to_text
from tundish.job import Status
from tundish.model import NAME
from tundish.outbox import announce
from tundish.view import encode, job_json, job_url, job_view

T = TypeVar("T")
Placed = list[store.NewJob | Refusal]

log = logging.getLogger(__name__)

_LISTED = ("status", "model", "batch", "created_after", "created_before", "metadata.", "limit", "cursor")


_JOB = "/v1/jobs/{id}"
_PATH = compile_path(_JOB)[0]


class Jobs:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [
            # Tried in this order: what is called most comes first.
            Route(_JOB, self.get, methods=["GET"]),
            Route("/v1/jobs", self.create, methods=["POST"]),
            Route("/v1/jobs", self.list, methods=["GET"]),
            Route("/v1/jobs:batch", self.create_batch, methods=["POST"]),
            Route(_JOB, self.delete, methods=["DELETE"]),
            Route("/v1/jobs/{id}/result", self.result, methods=["GET"]),
            Route("/v1/jobs/{id}/input", self.input, methods=["GET"]),
            Route("/v1/jobs/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/jobs/{id}/retry", self.retry, methods=["POST"]),
            Route("/v1/models/{model}/jobs", self.create_of_model, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        known_parameters(request, ())
        body = await read_body(request, self._parts.settings.max_body)

        async def place() -> Placed:
            return [await self._parts.submitter.job(request.state.tenant, content_type(request), body)]

        return await self._submit(request, body, place, self._one)

    async def create_of_model(self, request: Request) -> Response:
        body = await read_body(request, self._parts.settings.max_body)

        async def place() -> Placed:
            model, query = request.path_params["model"], parameters(request)
            return [await self._parts.submitter.body(request.state.tenant, model, content_type(request), body, query)]

        return await self._submit(request, body, place, self._one)

    async def create_batch(self, request: Request) -> Response:
        known_parameters(request, ())
        body = await read_body(request, self._parts.settings.max_body)

        async def place() -> Placed:
            return await self._parts.submitter.batch(request.state.tenant, content_type(request), body)

        return await self._submit(request, body, place, _many)

    async def retry(self, request: Request) -> Response:
        id = job_id(request)
        known_parameters(request, ())
        body = await read_body(request, self._parts.settings.max_body)
        self._parts.in_retention(id)

        async def place() -> Placed:
            found = await self._parts.run(store.read_again, request.state.tenant, id)
            if found is None:
                raise no_such_job()
            status, job = found
            if not status.terminal:
                raise _not_finished()
            return [await self._parts.submitter.again(job)]

        return await self._submit(request, body, place, self._one)

    async def delete(self, request: Request) -> Response:
        id, tenant = job_id(request), request.state.tenant
        known_parameters(request, ())
        if not (await self._parts.job(tenant, id)).status.terminal:
            raise _not_finished()
        shadow = await self._parts.run(store.shadow, tenant, id)
        try:  # the blobs first: what is in the way then leaves the job to be deleted again
            for each in (id, shadow):
                if each:
                    await of_blobs(self._parts.blobs.delete_prefix, job_prefix(tenant, each))
        except BlobError as error:
            raise no_blobs() from error
        # As a key holds it; older rows hold it with the public URL.
        here = [job_url(to_text("job", id), before) for before in ("", self._parts.settings.public_url)]
        if not await self._parts.run(store.delete, tenant, id, *here):
            raise no_such_job()
        await self._parts.streams.forget(id)
        return Response(status_code=204)

    def soon(self, scope: Scope, tenant: int, then: Callable[[Response | None], None]) -> bool:
        """The status of a job, without a task of its own. `then` gets the answer once it was read, or None where `get`
        has more to say: it finds in the scope what was read. False for another path. Raises NotFound."""
        match = _PATH.match(scope["path"])
        id = from_text("job", match["id"]) if match else None
        if id is None:
            return False
        self._parts.in_retention(id)

        def read(found: Found) -> None:
            scope["state"]["read"] = found
            response = None
            if isinstance(found, store.JobRow) and found.status is not Status.RUNNING:
                with suppress(Exception):  # that is what `get` answers with
                    response = json_response(job_json(found, self._parts.settings.public_url))
            then(response)

        self._parts.reads.ask(id, tenant, read)
        return True

    async def get(self, request: Request) -> Response:
        id = job_id(request)
        given = known_parameters(request, ("wait",))
        if "wait" not in given:
            state = request.scope["state"]
            found = told(state["read"]) if "read" in state else await self._parts.job(request.state.tenant, id)
            if found is None:
                raise no_such_job()
            return await self._shown(found)
        wait = seconds(given["wait"], "wait")
        job = await unless_gone(request, self._ended(request, id, wait))
        return await self._shown(job, {"preference-applied": f"wait={wait:g}"}) if job else Response(status_code=204)

    async def result(self, request: Request) -> Response:
        status, output = await self._after(store.read_output, request)
        if not status.terminal:
            raise _not_finished()
        if status != Status.SUCCEEDED or output is None:
            raise Conflict("no_result", f"the job is {status.name.lower()}: it has no result, see its error")
        return await self._payload(output)

    async def input(self, request: Request) -> Response:
        return await self._payload(await self._after(store.read_input, request))

    async def cancel(self, request: Request) -> Response:
        job = await self._after(partial(_cancel, public_url=self._parts.settings.public_url), request)
        if job.status.terminal:
            await self._parts.tell(job.id)
        return await self._shown(job)

    async def list(self, request: Request) -> Response:
        given = known_parameters(request, _LISTED)
        listing = await self._parts.run(store.list_jobs, request.state.tenant, self._search(given))
        public_url = self._parts.settings.public_url
        progress = await asyncio.gather(*map(self._parts.streams.progress, listing.jobs))
        data = [job_view(job, public_url, progress=each) for job, each in zip(listing.jobs, progress, strict=True)]
        return page(data, listing.next_before)

    async def _after(self, verb: Callable[[store.Connection, int, UUID], T | None], request: Request) -> T:
        """What a verb gives for the job whose id is in the path, within the retention. Raises NotFound."""
        id = job_id(request)
        known_parameters(request, ())
        self._parts.in_retention(id)
        found = await self._parts.run(verb, request.state.tenant, id)
        if found is None:
            raise no_such_job()
        return found

    async def _submit(
        self,
        request: Request,
        body: bytes,
        place: Callable[[], Awaitable[Placed]],
        show: Callable[[Placed, datetime], Response],
    ) -> Response:
        """Store what `place` makes of a request, then send, then answer; once for each Idempotency-Key."""
        key = keyed(request, body)
        if key and (first := await self._parts.once.replay(key)):
            return first
        placed = await place()
        new = [each for each in placed if isinstance(each, store.NewJob)]
        if key is None:
            answer = show(placed, await self._parts.flush.submit(new))
        else:
            stored = await self._parts.once.submit(key, new, lambda at: show(placed, at))
            if stored is None:
                await self._parts.submitter.drop(new)
                return await self._parts.once.replay(key) or await self._submit(request, body, place, show)
            answer, at = stored
            await self._parts.flush.send(new, at)
        log.debug("accepted %d jobs", len(new), extra={"request": request.state.request_id})
        wait = preferred_wait(request) if show == self._one else None
        return answer if wait is None else await self._waited(request, key, new[0].id, answer, wait)

    async def _waited(self, request: Request, key: Keyed | None, id: UUID, answer: Response, wait: float) -> Response:
        """The answer to a submit with the job once it has ended, or as it is after `wait` seconds. It was accepted:
        where it cannot be looked at, or was deleted meanwhile, the `answer` is the first one."""
        with suppress(NotFound, Unavailable):
            now = await unless_gone(request, self._ended(request, id, wait))
            if now is not None:
                shown = await self._shown(now, {"location": answer.headers["location"]})
                if not now.status.terminal:
                    shown.status_code = 202
                if key:
                    await self._parts.once.amend(key, now.id, shown)
                answer = shown
        answer.headers["preference-applied"] = f"wait={wait:g}"
        return answer

    def _one(self, placed: Placed, at: datetime) -> Response:
        [job] = placed
        assert isinstance(job, store.NewJob)  # one that is refused raises
        view = job_view(row_of(job, at), self._parts.settings.public_url)
        return json_response(encode(view), 202, {"location": view.urls.self})

    async def _ended(self, request: Request, id: UUID, wait: float) -> store.JobRow:
        """The job once it has ended, or as it is after `wait` seconds."""
        until = time.monotonic() + wait
        with self._parts.waiters.waiting(id) as bell:
            while True:
                job = await self._parts.job(request.state.tenant, id)
                left = until - time.monotonic()
                if job.status.terminal or left <= 0 or self._parts.waiters.stopped:
                    return job
                try:
                    async with asyncio.timeout(left):
                        await bell.wait()
                except TimeoutError:
                    continue
                bell.clear()

    async def _shown(self, job: store.JobRow, headers: dict[str, str] | None = None) -> Response:
        """A job that may be running, with its progress."""
        progress = await self._parts.streams.progress(job)
        return json_response(job_json(job, self._parts.settings.public_url, progress), headers=headers)

    async def _payload(self, payload: store.Payload) -> Response:
        if payload.url is not None:  # the caller's own
            return Response(status_code=307, headers={"location": payload.url})
        if payload.body is not None:
            # As a header: to a media type of text Starlette adds a charset.
            return Response(payload.body, headers={**INERT, "content-type": payload.content_type})
        if payload.etag is not None:
            await self._parts.pins.check(payload.blob or "", payload.etag)
        url = await asyncio.to_thread(self._parts.blobs.get_url, payload.blob or "", payload.content_type)
        return RedirectResponse(url, 307)

    def _search(self, given: dict[str, str]) -> store.Search:
        oldest = self._parts.oldest
        after = moment(given, "created_after") or oldest
        before = moment(given, "created_before")
        ends = [page_before(given)]
        if before:
            # An id tells milliseconds: one of that which `before` lies within was made before it.
            ends.append(floor_uuid(before + timedelta(microseconds=999)))
        # An id of the very millisecond `after` was not made after it.
        since = floor_uuid(max(after, oldest) + timedelta(milliseconds=1))
        return store.Search(before=min(ends), since=since, **_filters(given))


def _many(placed: Placed, at: datetime) -> Response:
    data = [
        {"error": {"code": each.problem.code, "message": each.problem.detail, "index": each.index}}
        if isinstance(each, Refusal)
        else {"id": to_text("job", each.id), "status": "queued"}
        for each in placed
    ]
    return encoded({"data": data}, 202)


def _not_finished() -> Conflict:
    return Conflict("not_finished", "the job has not ended; wait for it with ?wait=60 on the job")


def _cancel(connection: store.Connection, tenant: int, id: UUID, public_url: str) -> store.JobRow | None:
    if store.cancel(connection, tenant, id):
        announce(connection, [(id, tenant)], public_url)
    job = store.read(connection, [(id, tenant)]).get((id, tenant))
    if job and job.cancel_requested and (shadow := store.shadow(connection, tenant, id)):
        store.cancel(connection, tenant, shadow)
    return job


def _filters(given: dict[str, str]) -> dict[str, Any]:
    filters: dict[str, Any] = {"limit": page_limit(given)}
    if "status" in given:
        if given["status"] not in {status.name.lower() for status in Status}:
            raise bad_query("status", "is queued, running, succeeded, failed or canceled")
        filters["status"] = Status[given["status"].upper()]
    if "model" in given:
        name, at, version = given["model"].partition("@")
        if not NAME.fullmatch(name) or (at and not NAME.fullmatch(version)):
            raise bad_query("model", "is name or name@version")
        filters |= {"model": name, "version": version or None}
    if "batch" in given:
        filters["batch"] = from_text("bat", given["batch"])
        if filters["batch"] is None:
            raise bad_query("batch", "is not the id of a batch")
    if metadata := {name[9:]: value for name, value in given.items() if name.startswith("metadata.")}:
        filters["keep"] = lambda job: metadata.items() <= msgspec.json.decode(job.metadata or b"{}").items()
    return filters
