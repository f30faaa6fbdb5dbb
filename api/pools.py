"""The routes of `/v1/workers` and `/v1/pools`: who works, how much there is to do, and how many should work."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.http import bad_query, encoded, known_parameters
from api.parts import Parts
from tundish import scaling, store
from tundish.errors import NotFound
from tundish.ids import to_text
from tundish.view import rfc3339

#: Seconds that a worker which is no longer seen is shown as lost.
LOST_FOR = 3600.0
#: States of a worker that takes jobs.
WORKING = ("idle", "busy")


@dataclass(frozen=True, slots=True)
class Look:
    """All that the pools' figures are made of, read at one moment."""

    versions: Sequence[store.Version]
    paused: store.Paused
    backlog: Sequence[store.Backlog]
    running: Mapping[tuple[str, str], int]
    arrivals: Sequence[store.Arrivals]
    workers: Sequence[store.Worker]

    def names(self) -> list[str]:
        of_versions, of_workers = ({each.pool for each in self.versions}, {each.pool for each in self.workers})
        return sorted(of_versions | of_workers | self.paused.pools)


class Pools:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [
            Route("/v1/workers", self.workers, methods=["GET"]),
            Route("/v1/pools", self.list, methods=["GET"]),
            Route("/v1/pools/{name}", self.get, methods=["GET"]),
            Route("/v1/pools/{name}/pause", self.pause, methods=["POST"]),
            Route("/v1/pools/{name}/resume", self.resume, methods=["POST"]),
        ]

    async def workers(self, request: Request) -> Response:
        known_parameters(request, ())
        return encoded({"data": [_worker(each) for each in await workers_of(self._parts)], "next_cursor": None})

    async def list(self, request: Request) -> Response:
        policy = _policy(request)
        look = await self._look()
        return encoded({"data": [_pool(look, name, policy) for name in look.names()], "next_cursor": None})

    async def get(self, request: Request) -> Response:
        policy = _policy(request)
        return encoded(_pool(*await self._known(request), policy))

    async def pause(self, request: Request) -> Response:
        return await self._halt(request, store.pause)

    async def resume(self, request: Request) -> Response:
        return await self._halt(request, store.resume)

    async def _halt(self, request: Request, verb: store.Halt) -> Response:
        policy = _policy(request)
        _, name = await self._known(request)
        await self._parts.change(verb, "pool", name)
        return encoded(_pool(await self._look(), name, policy))

    async def _known(self, request: Request) -> tuple[Look, str]:
        look, name = await self._look(), request.path_params["name"]
        if name not in look.names():
            known = ", ".join(look.names()) or "none yet: start a worker"
            raise NotFound("pool_not_found", f"there is no such pool; there are: {known}")
        return look, name

    async def _look(self) -> Look:
        parts = self._parts
        await parts.models.refresh()
        return Look(
            parts.models.versions(),
            parts.models.paused,
            await parts.run(store.backlog),
            await parts.run(store.running),
            await parts.run(store.arrivals, within=scaling.QUIET),
            await parts.run(store.workers, seen_within=store.WORKER_KEPT, lost_after=parts.settings.lease),
        )


async def workers_of(parts: Parts) -> list[store.Worker]:
    """Those that have not stopped: a lost one for an hour."""
    lease = parts.settings.lease
    workers = await parts.run(store.workers, seen_within=max(LOST_FOR, lease), lost_after=lease)
    return [each for each in workers if each.state != "stopped"]


def per_s(workers: Sequence[store.Worker]) -> float:
    """Jobs that those which are there end in a second."""
    return sum(each.jobs_per_s or 0.0 for each in workers if each.state in WORKING)


def _policy(request: Request) -> scaling.Policy:
    given = known_parameters(request, ("target_wait",))
    if "target_wait" not in given:
        return scaling.Policy()
    text = given["target_wait"]
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise bad_query("target_wait", "is a whole number of seconds, from 1 to 999999")
    return scaling.Policy(target_wait=float(text))


def _pool(look: Look, name: str, policy: scaling.Policy) -> dict[str, Any]:
    versions = {(each.model, each.version) for each in look.versions if each.pool == name}
    waiting = [each for each in look.backlog if (each.queue.model, each.queue.version) in versions]
    arrived = [each for each in look.arrivals if (each.model, each.version) in versions]
    workers = [each for each in look.workers if each.pool == name]
    working = [each for each in workers if each.state in WORKING]
    # What is paused waits for nobody.
    due = [each for each in waiting if not look.paused.holds(name, each.queue.model, each.queue.version)]
    arriving = [each for each in arrived if not look.paused.holds(name, each.model, each.version)]
    load = scaling.Load(
        backlog=sum(each.queued for each in due),
        oldest_age_s=max((each.oldest_s for each in due), default=0.0),
        arrival_per_s=sum(each.per_s for each in arriving),
        awake=bool(arriving) or any(each.state == "busy" for each in working),
        job_s=_job_s(workers),
        replicas=len(working),
    )
    return {
        "name": name,
        "models": sorted(f"{model}@{version}" for model, version in versions),
        "backlog": sum(each.queued for each in waiting),
        "oldest_age_s": round(max((each.oldest_s for each in waiting), default=0.0), 3),
        "arrival_per_s": round(sum(each.per_s for each in arrived), 3),
        "service_per_s": round(per_s(workers), 3),
        "workers": len(working),
        "suggested_replicas": scaling.suggested(load, policy),
        "running": sum(look.running.get(each, 0) for each in versions),
        "paused": name in look.paused.pools,
    }


def _job_s(workers: Sequence[store.Worker]) -> float | None:
    """Device-seconds of a job: the mean of the workers that measured one and are there, else of the last that was."""
    measured = [each for each in workers if each.job_ms is not None]
    there = [each for each in measured if each.state in WORKING]
    chosen = there or sorted(measured, key=lambda each: each.seen_at.timestamp() if each.seen_at else 0.0)[-1:]
    return sum(each.job_ms or 0.0 for each in chosen) / len(chosen) / 1000 if chosen else None


def _worker(worker: store.Worker) -> dict[str, Any]:
    return {
        "id": to_text("wrk", worker.id),
        "pool": worker.pool,
        "device": worker.device,
        "memory_total": worker.memory_total,
        "memory_used": worker.memory_used,
        "models": worker.models,
        "places": worker.places,
        "batch_size": worker.batch_size,
        "state": worker.state,
        "pid": worker.pid,
        "host": worker.host,
        "seen_at": worker.seen_at and rfc3339(worker.seen_at),
    }
