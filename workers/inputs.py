"""Inputs: what a claim names by a URL is fetched while the device computes, beside the claims that need no URL.

The items of a claim are fetched at once. Nobody waits behind a slow URL: what has arrived after PATIENCE seconds goes
ahead as a batch of its own, and the rest follows.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

from tundish import execute, outbound, store, strictjson
from tundish.codec import JSON, OCTETS
from tundish.ids import new_uuid, to_text
from tundish.job import Code
from workers.claim import Claim
from workers.fetch import TIMEOUT, Unavailable, fetch

log = logging.getLogger(__name__)

#: Seconds that what has arrived waits for the rest of its batch.
PATIENCE = 0.5
#: URLs of one batch that are fetched at once.
AT_ONCE = 64

#: Content types that say nothing of what they hold.
_UNSAID = ("", OCTETS, "binary/octet-stream")


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches inputs of at most `limit` bytes from their URLs, each `within` so many seconds."""

    allowed: Sequence[outbound.Network]
    limit: int
    within: float = TIMEOUT
    patience: float = PATIENCE

    def parts(self, claim: Claim) -> Iterator[Claim]:
        """The claim with its inputs: as it is, or in parts where some are slow. All but the last have new ids, which
        the store does not know of yet."""
        with asyncio.Runner() as runner:
            turns = asyncio.Semaphore(AT_ONCE)
            loop = runner.get_loop()
            waiting = {loop.create_task(self._get(job, turns)): job for job in claim.jobs}
            while waiting:
                done, _ = runner.run(asyncio.wait(waiting, timeout=self.patience))
                arrived = [(job, task.result()) for task, job in waiting.items() if task in done]
                waiting = {task: job for task, job in waiting.items() if task not in done}
                if arrived:
                    part = replace(claim, id=new_uuid()) if waiting else claim
                    yield _with(replace(part, jobs=[job for job, _ in arrived]), arrived)

    async def _get(self, job: store.ClaimedJob, turns: asyncio.Semaphore) -> store.ClaimedJob | execute.Failed:
        if job.input_url is None:
            return job
        into = BytesIO()
        try:
            async with turns:
                given = await fetch(job.input_url, self.allowed, into, self.limit, self.within)
            return _checked(job, into.getvalue(), given)
        except Unavailable as error:
            log.info("an input URL gives nothing: %s", error, extra={"job": to_text("job", job.id)})
            return execute.Failed(Code.INPUT_UNAVAILABLE, f"the input URL cannot be used: {error}")


def _checked(job: store.ClaimedJob, body: bytes, given: str) -> store.ClaimedJob | execute.Failed:
    """The job with its input; until here `content_type` is what its model takes. Raises Unavailable."""
    wanted, essence = job.content_type, given.partition(";")[0].strip().lower()
    if wanted != OCTETS and essence != wanted and essence not in _UNSAID:
        raise Unavailable(f"it is {essence}; the model takes {wanted}")
    if wanted == JSON:
        try:
            strictjson.loads(body)
        except strictjson.InvalidJSON as error:
            return execute.Failed(
                Code.INVALID_INPUT, f"what the input URL gives is not JSON as it is taken here: {error}"
            )
    return job._replace(body=body, content_type=wanted if essence in _UNSAID else given)


def _with(claim: Claim, got: Sequence[tuple[store.ClaimedJob, store.ClaimedJob | execute.Failed]]) -> Claim:
    failed = {job.id: each for job, each in got if isinstance(each, execute.Failed)}
    jobs = [job if isinstance(each, execute.Failed) else each for job, each in got]
    return replace(claim, jobs=jobs, failed={**claim.failed, **failed})
