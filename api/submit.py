"""Submit: what a request asks for becomes jobs, validated, their large inputs in blobs, ready to be stored."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from api import inputs
from api.http import parsed
from api.inputs import Input
from api.lineup import Models
from api.options import Options, Rules, Submit, SubmitBatch, from_query, metadata_json, unfit
from api.patience import no_blobs, of_blobs, of_blobs_at_length
from api.pins import Pinned, Pins
from tundish.blobs import BlobError, BlobMissing, BlobOversized, Blobs, job_prefix, key
from tundish.errors import Conflict, Problem, Refused, TooLarge, WrongType
from tundish.ids import new_uuid
from tundish.job import Status
from tundish.lineup import EXPLAINED, Routed, values
from tundish.store import JobRow, NewJob, with_shadows

log = logging.getLogger(__name__)

#: Blobs that one request writes at once.
PUTS = 16

_submit = msgspec.json.Decoder(Submit)
_submit_batch = msgspec.json.Decoder(SubmitBatch)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one input of a batch was not taken."""

    index: int
    problem: Problem


class Submitter:
    """Turns requests into jobs."""

    def __init__(
        self, models: Models, blobs: Blobs, pins: Pins, rules: Rules, *, inline_max: int, max_body: int
    ) -> None:
        self._models = models
        self._blobs = blobs
        self._pins = pins
        self._rules = rules
        self._inline_max = inline_max
        self._max_body = max_body

    async def job(self, tenant: int, content_type: str, body: bytes) -> NewJob:
        """`POST /v1/jobs`. Raises Problem."""
        value = parsed(content_type, body)
        try:
            asked = _submit.decode(body)
        except msgspec.ValidationError as error:
            raise unfit(error, value) from error
        source = asked.source
        routed = await self._models.route(asked.model, asked.sticky_key)
        if source == "input_url":
            url = str(asked.input_url)
            self._rules.check_url(source, url)
            return await self._one(tenant, routed, asked, Input(None, routed.known.version.input_type, url))
        if source == "upload":
            return await self._uploaded(tenant, routed, asked)
        assert isinstance(value, dict)  # the decoder took it as an object
        assert isinstance(asked.input, msgspec.Raw)  # it is the source
        taken = Input(*routed.known.carried(value["input"], asked.input, "/input"))
        return await self._one(tenant, routed, asked, taken)

    async def body(
        self, tenant: int, model: str, content_type: str, body: bytes, query: Sequence[tuple[str, str]]
    ) -> NewJob:
        """`POST /v1/models/{model}/jobs`: the body itself is the input. Raises Problem."""
        asked = from_query(query)
        routed = await self._models.route(model, asked.sticky_key)
        return await self._one(tenant, routed, asked, inputs.of_body(routed.known, content_type, body))

    async def batch(self, tenant: int, content_type: str, body: bytes) -> list[NewJob | Refusal]:
        """`POST /v1/jobs:batch`: for each input, in order, its job or why it was refused. Raises Problem for what is
        wrong with the call itself."""
        value = parsed(content_type, body)
        try:
            asked = _submit_batch.decode(body)
        except msgspec.ValidationError as error:
            raise unfit(error, value) from error
        assert isinstance(value, dict)  # the decoder took it as an object
        options = self._options(asked)
        answers: list[NewJob | Refusal] = []
        explained = EXPLAINED  # of all inputs together
        for index, (raw, input) in enumerate(zip(asked.inputs, value["inputs"], strict=True)):
            routed = await self._models.route(asked.model, asked.sticky_key)
            try:
                taken = Input(*routed.known.carried(input, raw, f"/inputs/{index}", explained))
            except WrongType as problem:  # of the version that it drew
                answers.append(Refusal(index, problem))
            except Refused as problem:
                held = values(input, explained)
                explained -= held if held <= explained else 0
                answers.append(Refusal(index, problem))
            else:
                answers.append(_new(tenant, routed, options, taken))
        jobs = iter(await self._place([each for each in answers if isinstance(each, NewJob)]))
        return [next(jobs) if isinstance(each, NewJob) else each for each in answers]

    async def again(self, job: NewJob) -> NewJob:
        """`POST /v1/jobs/{id}/retry`: a new job with the same input and options. Raises Problem."""
        new = job._replace(id=new_uuid(), retry_of=job.id)
        if job.blob is None:
            return new
        name = key(new.tenant, new.id, 0, "input")
        try:
            await of_blobs_at_length(self._blobs.copy, job.blob, name, job.content_type, job.etag)
        except BlobMissing as error:
            raise Conflict("input_unavailable", "the job's input is gone; submit it anew") from error
        except BlobError as error:
            raise no_blobs() from error
        return new._replace(blob=name, etag=None)

    async def drop(self, jobs: Sequence[NewJob]) -> None:
        """Delete the blobs of jobs that are not stored after all; what is in the way goes when its day is dropped."""
        for job in with_shadows(jobs):
            if job.blob is not None:
                try:
                    await of_blobs(self._blobs.delete_prefix, job_prefix(job.tenant, job.id))
                except BlobError as error:
                    log.warning("a blob that is not needed stays: %s", error)

    async def _uploaded(self, tenant: int, routed: Routed, asked: Submit) -> NewJob:
        """A job on an upload. JSON and text are checked here where they are no larger than a body may be, else by
        the worker alone."""
        options, known = self._options(asked), routed.known
        pinned = await self._pins.pin(tenant, str(asked.upload))
        inputs.check_type(known, pinned.content_type)
        if known.in_json and pinned.size <= self._max_body:
            inputs.check_upload(known, await self._pins.read(pinned))
        return _new(tenant, routed, options, Input(None, pinned.content_type), pinned)

    async def _one(self, tenant: int, routed: Routed, asked: Options, input: Input) -> NewJob:
        [job] = await self._place([_new(tenant, routed, self._options(asked), input)])
        return job

    def _options(self, asked: Options) -> dict[str, Any]:
        self._rules.check(asked)
        return {
            "priority": asked.rank,
            "expires_in": self._rules.expires_in(asked),
            "metadata": metadata_json(asked.metadata),
            "webhook": asked.webhook,
            "timeout": asked.timeout,
            "sticky_key": asked.sticky_key,
        }

    async def _place(self, jobs: list[NewJob]) -> list[NewJob]:
        """Put the inputs that are too large for a row into blobs, before their row is written."""
        if all(job.size <= self._inline_max for job in jobs):
            return jobs
        slots = asyncio.Semaphore(PUTS)

        async def place(job: NewJob) -> NewJob:
            if job.body is None or job.size <= self._inline_max:
                return job
            name = key(job.tenant, job.id, 0, "input")
            async with slots:
                try:
                    await of_blobs(self._blobs.put, name, job.body, job.content_type)
                except BlobOversized as error:
                    log.error("the store of blobs takes less than TUNDISH_MAX_BODY: %s", error)
                    detail = f"the store of large payloads takes no {job.size} bytes; send a smaller input"
                    raise TooLarge("body_too_large", detail) from error
                except BlobError as error:
                    raise no_blobs() from error
            return job._replace(body=None, blob=name, shadow=await place(job.shadow) if job.shadow else None)

        return list(await asyncio.gather(*map(place, jobs)))


def _new(tenant: int, routed: Routed, options: dict[str, Any], input: Input, pinned: Pinned | None = None) -> NewJob:
    version = routed.known.version
    job = NewJob(
        id=new_uuid(),
        tenant=tenant,
        model=version.model,
        version=version.version,
        content_type=input.content_type,
        size=pinned.size if pinned else len(input.body or b""),
        body=input.body,
        blob=pinned.key if pinned else None,
        etag=pinned.etag if pinned else None,
        input_url=input.url,
        **options,
    )
    return job.shadowed(routed.shadow.version.version) if routed.shadow else job


def row_of(job: NewJob, at: datetime) -> JobRow:
    """The job as it reads right after it was stored, at the database's time `at`."""
    return JobRow(
        job.id,
        job.tenant,
        job.model,
        job.version,
        Status.QUEUED,
        cancel_requested=False,
        attempt=0,
        priority=job.priority,
        expires_at=at + timedelta(seconds=job.expires_in),
        metadata=job.metadata,
        retry_of=job.retry_of,
        shadow_of=job.shadow_of,
    )
