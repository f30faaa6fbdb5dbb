"""`GET /v1/models/{model}/compare`: versions side by side, and how shadows agreed with what was answered."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.http import bad_query, encoded, known_parameters, moment
from api.parts import Parts
from api.patience import no_blobs, of_blobs
from tundish import store
from tundish.agree import Agreement, agree
from tundish.blobs import BlobMissing, BlobUnavailable
from tundish.errors import NotFound
from tundish.ids import floor_uuid, shadow_id, time_of, to_text
from tundish.job import Status
from tundish.view import rfc3339

#: Without `since`, the last hour.
LATELY = timedelta(hours=1)
#: Jobs that are looked at, the newest first.
BUDGET = 20_000
#: Pairs that differ of which the ids are told.
EXAMPLES = 5
#: Outputs in blobs that are read at once.
READS = 8
#: What may become of a pair; outputs that are too large, or gone, are not compared.
VERDICTS = "equal close different not_compared both_failed only_version_failed only_shadow_failed".split()
APART = {"different", "only_version_failed", "only_shadow_failed"}
#: Versions that are set side by side at most.
VERSIONS = 10


class Compare:
    """The handler over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [Route("/v1/models/{model}/compare", self.get, methods=["GET"])]

    async def get(self, request: Request) -> Response:
        given = known_parameters(request, ("versions", "since"))
        model, tenant = request.path_params["model"], request.state.tenant
        versions = await self._versions(model, given.get("versions"))
        since = max(moment(given, "since") or datetime.now(UTC) - LATELY, self._parts.oldest)
        window = (tenant, model, versions, floor_uuid(since))
        looked, figures = await self._parts.run(store.compare, *window, budget=BUDGET)
        # What a busy system ran before the oldest job that was looked at is not in the figures.
        complete = looked.jobs < BUDGET or looked.oldest is None
        shown = {each.version: _figures(each) for each in figures}
        pairs = await self._parts.run(store.pairs, *window, budget=BUDGET)
        return encoded(
            {
                "model": model,
                "since": rfc3339(since if complete or looked.oldest is None else time_of(looked.oldest)),
                "complete": complete,
                "versions": {version: shown.get(version) or _figures(_none(version)) for version in versions},
                "shadows": await asyncio.to_thread(_shadows, await self._whole(pairs)),
            }
        )

    async def _whole(self, pairs: Sequence[store.Pair]) -> list[store.Pair]:
        """With the outputs that lie in blobs. Raises Unavailable."""
        try:
            return await of_blobs(self._read_all, pairs)
        except BlobUnavailable as error:
            raise no_blobs() from error

    def _read_all(self, pairs: Sequence[store.Pair]) -> list[store.Pair]:
        with ThreadPoolExecutor(READS) as pool:
            jobs = pool.map(self._read, [pair.job for pair in pairs])
            shadows = pool.map(self._read, [pair.shadow for pair in pairs])
            read = zip(pairs, jobs, shadows, strict=True)
            return [pair._replace(job=job, shadow=shadow) for pair, job, shadow in read]

    def _read(self, outcome: store.Outcome) -> store.Outcome:
        if outcome.blob is None:
            return outcome
        try:
            return outcome._replace(body=self._parts.blobs.get(outcome.blob))
        except BlobMissing:  # its job was deleted meanwhile
            return outcome

    async def _versions(self, model: str, asked: str | None) -> list[str]:
        await self._parts.models.refresh()
        known = [version.version for version in self._parts.models.versions(model)]
        if not known:
            raise NotFound("model_not_found", "there is no such model; GET /v1/models lists them")
        if asked is None:
            return known[-VERSIONS:]
        versions = list(dict.fromkeys(asked.split(",")))
        if len(versions) > VERSIONS or not set(versions) <= set(known):
            raise bad_query("versions", f"up to {VERSIONS} with commas between, of: {', '.join(known)}")
        return versions


def _none(version: str) -> store.Figures:
    return store.Figures(version, 0, 0, 0, 0, 0, {}, None, None, None)


def _figures(figures: store.Figures) -> dict[str, Any]:
    latency = {"queued": figures.queued_ms, "predict": figures.predict_ms, "total": figures.total_ms}
    return {
        "jobs": figures.jobs,
        "shadows": figures.shadows,
        "succeeded": figures.succeeded,
        "failed": figures.failed,
        "canceled": figures.canceled,
        "errors": figures.errors,
        "latency_ms": {name: values and _quantiles(values) for name, values in latency.items()},
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return dict(zip(store.QUANTILES, [round(value, 3) for value in values], strict=True))


def _shadows(pairs: Sequence[store.Pair]) -> list[dict[str, Any]]:
    """How each shadow version agreed with each version that it shadowed."""
    grouped: dict[tuple[str, str], list[store.Pair]] = {}
    for pair in pairs:
        grouped.setdefault((pair.version, pair.shadow_version), []).append(pair)
    return [_agreement(*key, grouped[key]) for key in sorted(grouped)]


def _agreement(version: str, shadow: str, pairs: Sequence[store.Pair]) -> dict[str, Any]:
    judged = [(pair, *_judge(pair)) for pair in pairs]
    counts = Counter(verdict for _, verdict, _ in judged)
    apart = [found.max_abs_diff for _, _, found in judged if found and found.max_abs_diff is not None]
    cosines = [found.cosine for _, _, found in judged if found and found.cosine is not None]
    return {
        "version": version,
        "shadow": shadow,
        "pairs": len(pairs),
        **{verdict: counts[verdict] for verdict in VERDICTS},
        "max_abs_diff": max(apart, default=None),
        "min_cosine": min(cosines, default=None),
        "examples": [_ids(pair) for pair, verdict, _ in judged if verdict in APART][:EXAMPLES],
    }


def _ids(pair: store.Pair) -> dict[str, str]:
    return {"job": to_text("job", pair.id), "shadow": to_text("job", shadow_id(pair.id))}


def _judge(pair: store.Pair) -> tuple[str, Agreement | None]:
    match pair.job.status == Status.SUCCEEDED, pair.shadow.status == Status.SUCCEEDED:
        case False, False:
            return "both_failed", None
        case False, True:
            return "only_version_failed", None
        case True, False:
            return "only_shadow_failed", None
    if pair.job.body is None or pair.shadow.body is None:
        return "not_compared", None
    found = agree(pair.job.content_type, pair.job.body, pair.shadow.content_type, pair.shadow.body)
    return found.verdict, found
