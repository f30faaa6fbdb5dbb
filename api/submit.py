"""Submit: what a request asks for becomes jobs, validated, their large inputs in blobs, ready to be stored."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from api.http import JSON, essence, parsed
from api.models import Known, Models, Routed
from api.options import Options, Rules, Submit, SubmitBatch, from_query, metadata_json, unfit
from tundish.blobs import BlobError, BlobMissing, Blobs, job_prefix, key
from tundish.errors import Conflict, Problem, Refused, Unavailable, WrongType
from tundish.ids import new_uuid, shadow_id
from tundish.job import Priority, Status
from tundish.store import JobRow, NewJob, with_shadows

#: Blobs that one request writes at once.
PUTS = 16

_submit = msgspec.json.Decoder(Submit)
_submit_batch = msgspec.json.Decoder(SubmitBatch)


class Input(NamedTuple):
    """An input, or where the worker finds it."""

    body: bytes | None
    content_type: str
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one input of a batch was not taken."""

    index: int
    problem: Problem


class Submitter:
    """Turns requests into jobs."""

    def __init__(self, models: Models, blobs: Blobs, rules: Rules, inline_max: int) -> None:
        self._models = models
        self._blobs = blobs
        self._rules = rules
        self._inline_max = inline_max

    async def job(self, tenant: int, content_type: str, body: bytes) -> NewJob:
        """`POST /v1/jobs`. Raises Problem."""
        value = parsed(content_type, body)
        try:
            asked = _submit.decode(body)
        except msgspec.ValidationError as error:
            raise unfit(error) from error
        source = asked.source
        routed = await self._models.route(asked.model, asked.sticky_key)
        if source == "input_url":
            url = str(asked.input_url)
            self._rules.url(source, url)
            return await self._one(tenant, routed, asked, Input(None, routed.known.version.input_type, url))
        _wants_json(routed.known)
        assert isinstance(value, dict)  # the decoder took it as an object
        assert isinstance(asked.input, msgspec.Raw)  # it is the source
        routed.known.check(value["input"], "/input")
        return await self._one(tenant, routed, asked, Input(bytes(asked.input), JSON))

    async def body(
        self, tenant: int, model: str, content_type: str, body: bytes, query: Sequence[tuple[str, str]]
    ) -> NewJob:
        """`POST /v1/models/{model}/jobs`: the body itself is the input. Raises Problem."""
        asked = from_query(query)
        routed = await self._models.route(model, asked.sticky_key)
        wanted = routed.known.version.input_type
        if wanted == JSON:
            routed.known.check(parsed(content_type, body), "")
            content_type = JSON
        elif wanted != "application/octet-stream" and essence(content_type) != wanted:
            raise WrongType("unsupported_media_type", f"{model} takes {wanted}; send that Content-Type")
        return await self._one(tenant, routed, asked, Input(body, content_type or "application/octet-stream"))

    async def batch(self, tenant: int, content_type: str, body: bytes) -> list[NewJob | Refusal]:
        """`POST /v1/jobs:batch`: for each input, in order, its job or why it was refused. Raises Problem where all
        of it is refused."""
        value = parsed(content_type, body)
        try:
            asked = _submit_batch.decode(body)
        except msgspec.ValidationError as error:
            raise unfit(error) from error
        assert isinstance(value, dict)  # the decoder took it as an object
        options = self._options(asked)
        answers: list[NewJob | Refusal] = []
        for index, (raw, input) in enumerate(zip(asked.inputs, value["inputs"], strict=True)):
            routed = await self._models.route(asked.model, asked.sticky_key)
            _wants_json(routed.known)
            try:
                routed.known.check(input, f"/inputs/{index}")
            except Refused as problem:
                answers.append(Refusal(index, problem))
            else:
                answers.append(_new(tenant, routed, options, Input(bytes(raw), JSON)))
        jobs = iter(await self._place([each for each in answers if isinstance(each, NewJob)]))
        return [next(jobs) if isinstance(each, NewJob) else each for each in answers]

    async def again(self, job: NewJob) -> NewJob:
        """`POST /v1/jobs/{id}/retry`: a new job with the same input and options. Raises Problem."""
        new = replace(job, id=new_uuid(), retry_of=job.id)
        if job.blob is None:
            return new
        name = key(new.tenant, new.id, 0, "input")
        try:
            await asyncio.to_thread(self._blobs.copy, job.blob, name, job.content_type)
        except BlobMissing as error:
            raise Conflict("input_unavailable", "the job's input is gone; submit it anew") from error
        except BlobError as error:
            raise _no_blobs() from error
        return replace(new, blob=name)

    async def drop(self, jobs: Sequence[NewJob]) -> None:
        """Delete the blobs of jobs that are not stored after all."""
        for job in with_shadows(jobs):
            if job.blob is not None:
                await asyncio.to_thread(self._blobs.delete_prefix, job_prefix(job.tenant, job.id))

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
        slots = asyncio.Semaphore(PUTS)

        async def place(job: NewJob) -> NewJob:
            if job.body is None or job.size <= self._inline_max:
                return job
            name = key(job.tenant, job.id, 0, "input")
            async with slots:
                try:
                    await asyncio.to_thread(self._blobs.put, name, job.body, job.content_type)
                except BlobError as error:
                    raise _no_blobs() from error
            return replace(job, body=None, blob=name, shadow=await place(job.shadow) if job.shadow else None)

        if all(job.size <= self._inline_max for job in jobs):
            return jobs
        return list(await asyncio.gather(*map(place, jobs)))


def _no_blobs() -> Unavailable:
    return Unavailable("unavailable", "the store of large inputs does not answer; try again", retry_after=2)


def _wants_json(known: Known) -> None:
    version = known.version
    if version.input_type != JSON:
        detail = f"{version.model} takes {version.input_type}; send it to /v1/models/{version.model}/jobs"
        raise WrongType("unsupported_media_type", detail)


def _new(tenant: int, routed: Routed, options: dict[str, Any], input: Input) -> NewJob:
    version = routed.known.version
    job = NewJob(
        id=new_uuid(),
        tenant=tenant,
        model=version.model,
        version=version.version,
        content_type=input.content_type,
        size=len(input.body or b""),
        body=input.body,
        input_url=input.url,
        **options,
    )
    return replace(job, shadow=_shadow(job, routed.shadow.version.version)) if routed.shadow else job


def _shadow(job: NewJob, version: str) -> NewJob:
    """A job's copy for another version: behind everything else, and told to nobody. Its input is not checked against
    that version's schema: that it does not fit is what the comparison shall show."""
    return replace(
        job,
        id=shadow_id(job.id),
        version=version,
        priority=Priority.LOW,
        webhook=None,
        sticky_key=None,
        shadow_of=job.id,
    )


def row_of(job: NewJob, at: datetime) -> JobRow:
    """The job as it reads right after it was stored, at the database's time `at`."""
    return JobRow(
        id=job.id,
        tenant=job.tenant,
        model=job.model,
        version=job.version,
        status=Status.QUEUED,
        cancel_requested=False,
        attempt=0,
        priority=job.priority,
        expires_at=at + timedelta(seconds=job.expires_in),
        finished_at=None,
        started_at=None,
        metadata=job.metadata,
        retry_of=job.retry_of,
        batch=None,
        shadow_of=job.shadow_of,
        output_type=None,
        output_size=None,
        output=None,
        error=None,
        predict_ms=None,
        batch_size=None,
        worker=None,
    )
