"""The routes of `/v1/jobs`: submit, status, payloads, list, cancel."""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api.blobs import INERT
from api.http import (
    bad_query,
    encoded,
    job_id,
    json_response,
    known_parameters,
    no_such_job,
    preferred_wait,
    read_body,
    seconds,
    unless_gone,
)
from api.parts import Parts
from api.submit import Refusal
from tundish import store
from tundish.errors import Conflict
from tundish.ids import floor_uuid, from_text, seconds_of, to_text
from tundish.job import Status
from tundish.outbox import announce
from tundish.view import job_json, job_view

log = logging.getLogger(__name__)

_LISTED = ("status", "model", "batch", "created_after", "created_before", "metadata.", "limit", "cursor")


class Jobs:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [
            Route("/v1/jobs", self.create, methods=["POST"]),
            Route("/v1/jobs", self.list, methods=["GET"]),
            Route("/v1/jobs:batch", self.create_batch, methods=["POST"]),
            Route("/v1/jobs/{id}", self.get, methods=["GET"]),
            Route("/v1/jobs/{id}/result", self.result, methods=["GET"]),
            Route("/v1/jobs/{id}/input", self.input, methods=["GET"]),
            Route("/v1/jobs/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/models/{model}/jobs", self.create_of_model, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        known_parameters(request, ())
        body = await read_body(request, self._parts.settings.max_body)
        job = await self._parts.submitter.job(request.state.tenant, request.headers.get("content-type", ""), body)
        return await self._accepted(request, job)

    async def create_of_model(self, request: Request) -> Response:
        body = await read_body(request, self._parts.settings.max_body)
        job = await self._parts.submitter.body(
            request.state.tenant,
            request.path_params["model"],
            request.headers.get("content-type", ""),
            body,
            request.query_params.multi_items(),
        )
        return await self._accepted(request, job)

    async def create_batch(self, request: Request) -> Response:
        known_parameters(request, ())
        body = await read_body(request, self._parts.settings.max_body)
        answers = await self._parts.submitter.batch(request.state.tenant, request.headers.get("content-type", ""), body)
        data = [
            {"error": {"code": each.problem.code, "message": each.problem.detail, "index": each.index}}
            if isinstance(each, Refusal)
            else {"id": to_text("job", each.id), "status": each.status.name.lower()}
            for each in answers
        ]
        return encoded({"data": data}, 202)

    async def get(self, request: Request) -> Response:
        id = job_id(request)
        given = known_parameters(request, ("wait",))
        if "wait" not in given:
            return self._shown(await self._read(request, id))
        wait = seconds(given["wait"], "wait")
        job = await unless_gone(request, self._ended(request, id, wait))
        return self._shown(job, {"preference-applied": f"wait={wait:g}"}) if job else Response(status_code=204)

    async def result(self, request: Request) -> Response:
        id = job_id(request)
        known_parameters(request, ())
        self._in_retention(id)
        found = await self._parts.run(store.read_output, request.state.tenant, id)
        if found is None:
            raise no_such_job()
        status, output = found
        if not status.terminal:
            raise Conflict("not_finished", "the job has not ended; wait for it with ?wait=60 on the job")
        if status != Status.SUCCEEDED or output is None:
            raise Conflict("no_result", f"the job is {status.name.lower()}: it has no result, see its error")
        return await self._payload(output)

    async def input(self, request: Request) -> Response:
        id = job_id(request)
        known_parameters(request, ())
        self._in_retention(id)
        found = await self._parts.run(store.read_input, request.state.tenant, id)
        if found is None:
            raise no_such_job()
        return await self._payload(found)

    async def cancel(self, request: Request) -> Response:
        id = job_id(request)
        known_parameters(request, ())
        self._in_retention(id)
        job = await self._parts.run(_cancel, request.state.tenant, id, self._parts.settings.public_url)
        if job is None:
            raise no_such_job()
        if job.status.terminal:
            await self._parts.tell(id)
        return self._shown(job)

    async def list(self, request: Request) -> Response:
        given = known_parameters(request, _LISTED)
        listing = await self._parts.run(store.list_jobs, request.state.tenant, self._search(given))
        cursor = listing.next_before and to_text("cur", listing.next_before)
        public_url = self._parts.settings.public_url
        return encoded({"data": [job_view(job, public_url) for job in listing.jobs], "next_cursor": cursor})

    async def _accepted(self, request: Request, job: store.JobRow) -> Response:
        id = to_text("job", job.id)
        log.debug("accepted", extra={"request": request.state.request_id, "job": id})
        headers = {"location": f"{self._parts.settings.public_url}/v1/jobs/{id}"}
        wait = preferred_wait(request)
        if wait is None:
            return self._shown(job, headers, 202)
        headers["preference-applied"] = f"wait={wait:g}"
        now = await unless_gone(request, self._ended(request, job.id, wait))
        if now is not None and now.status.terminal:
            return self._shown(now, headers)
        return self._shown(now or job, headers, 202)

    async def _ended(self, request: Request, id: UUID, wait: float) -> store.JobRow:
        """The job once it has ended, or as it is after `wait` seconds."""
        until = time.monotonic() + wait
        with self._parts.waiters.waiting(id) as bell:
            while True:
                job = await self._read(request, id)
                left = until - time.monotonic()
                if job.status.terminal or left <= 0:
                    return job
                try:
                    await asyncio.wait_for(bell.wait(), left)
                except TimeoutError:
                    continue
                bell.clear()

    async def _read(self, request: Request, id: UUID) -> store.JobRow:
        self._in_retention(id)
        job = await self._parts.reads.get(id, request.state.tenant)
        if job is None:
            raise no_such_job()
        return job

    def _in_retention(self, id: UUID) -> None:
        """Retention holds to the second, though rows go by the day."""
        if seconds_of(id) < time.time() - self._parts.settings.retention:
            raise no_such_job()

    def _shown(self, job: store.JobRow, headers: dict[str, str] | None = None, status: int = 200) -> Response:
        return json_response(job_json(job, self._parts.settings.public_url), status, headers)

    async def _payload(self, payload: store.Payload) -> Response:
        if payload.body is not None:
            return Response(payload.body, headers=INERT, media_type=payload.content_type)
        url = await asyncio.to_thread(self._parts.blobs.get_url, payload.blob or "", payload.content_type)
        return RedirectResponse(url, 307)

    def _search(self, given: dict[str, str]) -> store.Search:
        oldest = datetime.now(UTC) - timedelta(seconds=self._parts.settings.retention)
        after = _moment(given, "created_after") or oldest
        before = _moment(given, "created_before")
        ends = [UUID(int=(1 << 128) - 1)]
        if before:
            ends.append(floor_uuid(before))
        if "cursor" in given:
            cursor = from_text("cur", given["cursor"])
            if cursor is None:
                raise bad_query("cursor", "is not the next_cursor of an earlier page")
            ends.append(cursor)
        # An id of the very millisecond `after` was not made after it.
        since = floor_uuid(max(after, oldest) + timedelta(milliseconds=1))
        return store.Search(before=min(ends), since=since, **_filters(given))


def _cancel(connection: store.Connection, tenant: int, id: UUID, public_url: str) -> store.JobRow | None:
    if store.cancel(connection, tenant, id):
        announce(connection, [(id, tenant)], public_url)
    return store.read(connection, [(id, tenant)]).get((id, tenant))


def _filters(given: dict[str, str]) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    if "limit" in given:
        text = given["limit"]
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 100):
            raise bad_query("limit", "is a number from 1 to 100")
        filters["limit"] = int(text)
    if "status" in given:
        if given["status"] not in {status.name.lower() for status in Status}:
            raise bad_query("status", "is queued, running, succeeded, failed or canceled")
        filters["status"] = Status[given["status"].upper()]
    if "model" in given:
        name, _, version = given["model"].partition("@")
        if "\0" in given["model"]:
            raise bad_query("model", "is name or name@version")
        filters |= {"model": name, "version": version or None}
    if "batch" in given:
        filters["batch"] = from_text("bat", given["batch"])
        if filters["batch"] is None:
            raise bad_query("batch", "is not the id of a batch")
    if metadata := {name[9:]: value for name, value in given.items() if name.startswith("metadata.")}:
        filters["keep"] = lambda job: metadata.items() <= msgspec.json.decode(job.metadata or b"{}").items()
    return filters


def _moment(given: dict[str, str], name: str) -> datetime | None:
    if name not in given:
        return None
    try:
        at = msgspec.convert(given[name].replace(" ", "+"), datetime, strict=False)
        if at.tzinfo is None or not 1970 <= at.year <= 9000:
            raise ValueError
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad_query(name, "is a time of RFC 3339, such as 2026-01-31T12:00:00Z") from None
