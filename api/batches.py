"""The routes of `/v1/batches`: a file of inputs, run as low as the queue goes, into a file of outputs."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api.http import content_type, encoded, known_parameters, page, page_before, page_limit, parsed, read_body
from api.once import keyed
from api.options import ModelName, Options, Seconds, metadata_json, unfit
from api.parts import Parts
from tundish import store
from tundish.batchfile import BYTES_MAX, Status
from tundish.batchview import JSONL, BatchView, batch_view
from tundish.errors import Conflict, NotFound, Refused, WrongType
from tundish.ids import floor_uuid, from_text, new_uuid, to_text


class WantedBatch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/batches`."""

    model: ModelName
    upload: Annotated[str, Meta(description='the id of an upload of JSONL, each line {"custom_id", "input"}')]
    webhook: Annotated[str, Meta(max_length=2048, description="gets the batch's terminal event")] | None = None
    expires_in: Seconds | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] = {}


_wanted = msgspec.json.Decoder(WantedBatch)


class Batches:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [
            Route("/v1/batches", self.create, methods=["POST"]),
            Route("/v1/batches", self.list, methods=["GET"]),
            Route("/v1/batches/{id}", self.get, methods=["GET"]),
            Route("/v1/batches/{id}/output", self.output, methods=["GET"]),
            Route("/v1/batches/{id}/error", self.error, methods=["GET"]),
            Route("/v1/batches/{id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        known_parameters(request, ())
        return await self._create(request, await read_body(request, self._parts.settings.max_body))

    async def list(self, request: Request) -> Response:
        given = known_parameters(request, ("limit", "cursor"))
        limit = page_limit(given)
        found = await self._parts.run(
            store.list_batches,
            request.state.tenant,
            before=page_before(given),
            since=floor_uuid(self._parts.oldest),
            limit=limit + 1,
        )
        shown = [await self._shown(each) for each in found[:limit]]
        return page(shown, found[limit - 1].id if len(found) > limit else None)

    async def get(self, request: Request) -> Response:
        return encoded(await self._shown(await self._after(store.read_batch, request)))

    async def cancel(self, request: Request) -> Response:
        return encoded(await self._shown(await self._after(store.cancel_batch, request)))

    async def output(self, request: Request) -> Response:
        batch = await self._after(store.read_batch, request)
        return await self._file(batch, batch.output)

    async def error(self, request: Request) -> Response:
        batch = await self._after(store.read_batch, request)
        return await self._file(batch, batch.errors)

    async def _create(self, request: Request, body: bytes) -> Response:
        """Once for each Idempotency-Key."""
        key = keyed(request, body)
        if key and (first := await self._parts.once.replay(key)):
            return first
        new = await self._new(request.state.tenant, content_type(request), body)
        if key is None:
            return self._made(new, await self._parts.run(store.new_batch, new))
        stored = await self._parts.once.new_batch(key, new, lambda at: self._made(new, at))
        return stored or await self._parts.once.replay(key) or await self._create(request, body)

    async def _new(self, tenant: int, content_type: str, body: bytes) -> store.NewBatch:
        """Raises Problem."""
        value = parsed(content_type, body)
        try:
            asked = _wanted.decode(body)
        except msgspec.ValidationError as error:
            raise unfit(error, value, "a batch") from error
        options = Options(webhook=asked.webhook, expires_in=asked.expires_in, metadata=asked.metadata)
        self._parts.rules.check(options)
        known = (await self._parts.models.route(asked.model)).known
        if not known.in_json:
            version = known.version
            detail = f"{version.model} takes {version.input_type}, and a batch file holds JSON; submit job by job"
            raise WrongType("unsupported_media_type", detail)
        expires_in = self._parts.rules.expires_in(options)
        pinned = await self._parts.pins.pin(tenant, asked.upload)
        if not 0 < pinned.size <= BYTES_MAX:
            fault = "is empty" if not pinned.size else f"has {pinned.size} bytes, and a batch file at most {BYTES_MAX}"
            raise Refused("invalid_request", f"the upload {fault}", [{"pointer": "/upload", "detail": fault}])
        return store.NewBatch(
            id=new_uuid(),
            tenant=tenant,
            model=asked.model,
            blob=pinned.key,
            etag=pinned.etag,
            size=pinned.size,
            expires_in=expires_in,
            webhook=asked.webhook,
            metadata=metadata_json(asked.metadata),
        )

    def _made(self, new: store.NewBatch, at: datetime) -> Response:
        response = encoded(batch_view(_row_of(new, at), self._parts.blobs), 201)
        response.headers["location"] = f"{self._parts.settings.public_url}/v1/batches/{to_text('bat', new.id)}"
        return response

    async def _after(
        self, verb: Callable[[store.Connection, int, UUID], store.BatchRow | None], request: Request
    ) -> store.BatchRow:
        """The batch whose id is in the path, within the retention, as it is after a verb. Raises NotFound."""
        id = from_text("bat", request.path_params["id"])
        known_parameters(request, ())
        if id is not None and id >= floor_uuid(self._parts.oldest):
            batch = await self._parts.run(verb, request.state.tenant, id)
            if batch is not None:
                return batch
        raise NotFound("batch_not_found", "there is no such batch")

    async def _shown(self, batch: store.BatchRow) -> BatchView:
        return await asyncio.to_thread(batch_view, batch, self._parts.blobs)

    async def _file(self, batch: store.BatchRow, key: str | None) -> Response:
        """Where one of its files is to be had for a while. Raises Conflict where it has none."""
        if not batch.status.terminal:
            raise Conflict("not_finished", "the batch has not ended; its files are written at its end")
        if key is None:
            raise Conflict("no_result", "the file would be empty: no line of the batch belongs in it")
        return RedirectResponse(await asyncio.to_thread(self._parts.blobs.get_url, key, JSONL), 307)


def _row_of(new: store.NewBatch, at: datetime) -> store.BatchRow:
    """The batch as it reads right after it was stored, at the database's time `at`."""
    return store.BatchRow(
        id=new.id,
        tenant=new.tenant,
        model=new.model,
        blob=new.blob,
        etag=new.etag,
        size=new.size,
        webhook=new.webhook,
        metadata=new.metadata,
        expires_at=at + timedelta(seconds=new.expires_in),
        status=Status.VALIDATING,
        cancel_requested=False,
        fault=None,
        at_byte=0,
        at_line=0,
        first_job=None,
        last_job=None,
        total=0,
        running=0,
        succeeded=0,
        failed=0,
        canceled=0,
        output=None,
        errors=None,
        finished_at=None,
        left_s=new.expires_in,
    )
