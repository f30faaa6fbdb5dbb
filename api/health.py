"""Liveness, readiness with reasons, and figures for Prometheus."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.http import encoded
from api.parts import Parts
from api.patience import of_blobs
from api.pools import per_s, workers_of
from migrations import head
from tundish import store
from tundish.blobs import BlobError
from tundish.errors import Unavailable

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Health:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._head = head()
        self._registry = prometheus_client.CollectorRegistry()
        self._backlog = _Backlog()
        self._registry.register(self._backlog)
        self._outbox = _Outbox()
        self._registry.register(self._outbox)
        self._workers = _Workers()
        self._registry.register(self._workers)
        self._answers = _Answers()
        self._registry.register(self._answers)

    def routes(self) -> list[Route]:
        return [
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    def count(self, method: str, status: int) -> None:
        """One more answer. Its method is one of a few: a made-up one is another word for other."""
        self._answers.counted[method if method in _METHODS else "other", status] += 1

    async def healthz(self, request: Request) -> Response:
        return encoded({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Ready is who can take a submit: that needs Postgres and the blob store, and not Redis."""
        database, blobs, messages = await asyncio.gather(self._database(), self._blobs(), self._messages())
        ready = database == "ok" and blobs == "ok"
        status = "ready" if ready and messages == "ok" else "degraded" if ready else "unavailable"
        checks = {"database": database, "blobs": blobs, "redis": messages}
        response = encoded({"status": status, "checks": checks}, 200 if ready else 503)
        if not ready:
            response.headers["retry-after"] = "2"
        return response

    async def metrics(self, request: Request) -> Response:
        try:
            self._backlog.rows = await self._parts.run(store.backlog)
            self._outbox.rows = await self._parts.run(store.undelivered)
            self._workers.rows = await workers_of(self._parts)
        except Unavailable:
            self._backlog.rows, self._outbox.rows, self._workers.rows = [], [], []
        text = prometheus_client.generate_latest(self._registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    async def _database(self) -> str:
        try:
            revision = await self._parts.run(store.revision)
            if (revision or "") < self._head:  # a later one only adds to it
                return f"at revision {revision}, this release needs {self._head}: run the release process"
            if not await self._parts.run(store.takes_writes):
                return "takes no writes: it is read-only"
            if not await self._parts.run(store.waits_for_disk):
                return "synchronous_commit is off: an accepted job could be lost; set it on for this database or role"
            missing = await self._parts.run(store.missing_partitions)
            behind = (await self._parts.run(store.clock) - datetime.now(UTC)).total_seconds()
        except Unavailable as error:
            return error.detail
        if behind > store.ID_AGE or (missing and behind < -store.ID_AGE):
            apart = f"{behind:.0f} s behind" if behind > 0 else f"{-behind:.0f} s ahead of"
            return f"the clock of this host is {apart} that of Postgres, which takes no jobs of then: set it right"
        return f"partitions are missing: {', '.join(missing)}: run the chores" if missing else "ok"

    async def _blobs(self) -> str:
        try:
            await of_blobs(self._parts.blobs.check)
        except BlobError as error:
            return str(error)
        return "ok"

    async def _messages(self) -> str:
        try:
            await self._parts.client.ping()
        except Exception as error:  # a cut connection shows as almost anything
            return f"does not answer ({type(error).__name__}): jobs are accepted and wait"
        return "ok"


class _Answers(Collector):
    """Counted by method and status. The loop's thread alone counts, so that no lock is needed (2 % of an answer)."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, int]] = Counter()

    def collect(self) -> Iterator[Any]:
        requests = CounterMetricFamily("tundish_http_requests", "Answers of the API.", labels=["method", "status"])
        for (method, status), count in self.counted.items():
            requests.add_metric([method, str(status)], count)
        yield requests


class _Workers(Collector):
    """Who has not stopped, and how fast they are together: read at the scrape."""

    def __init__(self) -> None:
        self.rows: list[store.Worker] = []

    def collect(self) -> Iterator[Any]:
        workers = GaugeMetricFamily("tundish_workers", "Workers.", labels=["pool", "state"])
        rate = GaugeMetricFamily(
            "tundish_jobs_per_second", "Jobs that the workers ended in a second, over the last minute.", labels=["pool"]
        )
        for (pool, state), count in Counter((row.pool, row.state) for row in self.rows).items():
            workers.add_metric([pool, state], count)
        for pool in {row.pool for row in self.rows}:
            rate.add_metric([pool], per_s([row for row in self.rows if row.pool == pool]))
        yield workers
        yield rate


class _Backlog(Collector):
    """What waits in each queue, read at the scrape."""

    def __init__(self) -> None:
        self.rows: list[store.Backlog] = []

    def collect(self) -> Iterator[Any]:
        labels = ["model", "version", "priority"]
        queued = GaugeMetricFamily("tundish_jobs_queued", "Jobs that wait.", labels=labels)
        oldest = GaugeMetricFamily("tundish_oldest_queued_seconds", "Age of the oldest that waits.", labels=labels)
        for row in self.rows:
            names = [row.queue.model, row.queue.version, row.queue.priority.name.lower()]
            queued.add_metric(names, row.queued)
            oldest.add_metric(names, row.oldest_s)
        yield queued
        yield oldest


class _Outbox(Collector):
    """Webhooks that were not delivered, read at the scrape."""

    def __init__(self) -> None:
        self.rows: list[store.Undelivered] = []

    def collect(self) -> Iterator[Any]:
        count = GaugeMetricFamily(
            "tundish_webhooks",
            "Webhooks that wait for their first try (fresh) or another (retried), and dead letters; at most 100,000.",
            labels=["state"],
        )
        oldest = GaugeMetricFamily("tundish_oldest_webhook_seconds", "Age of the oldest of these.", labels=["state"])
        for row in self.rows:
            count.add_metric([row.state], row.number)
            oldest.add_metric([row.state], row.oldest_s)
        yield count
        yield oldest
