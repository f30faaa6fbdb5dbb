"""The catalog as the API holds it: kept up to date, asked which version a `model` means, and shown."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

from api.patience import no_database
from tundish import store
from tundish.errors import NotFound, Unavailable
from tundish.ids import to_text
from tundish.lineup import Lineup, Routed
from tundish.routing import Routing

log = logging.getLogger(__name__)

#: Seconds between looks at the catalog, where no notice of a change came.
EVERY = 2.0


class Models:
    """Everything in the catalog: as of the last notice of a change, and at most EVERY seconds old where Redis lost
    it."""

    def __init__(self, engine: store.AsyncEngine, seen_within: float) -> None:
        self._engine = engine
        self._seen_within = seen_within
        self._lineup = Lineup()
        self._loading = asyncio.Lock()
        self._begun = 0
        self._away = False
        self._bell = asyncio.Event()

    async def run(self) -> None:
        """Keep up with the catalog until cancelled."""
        while True:
            with suppress(Unavailable):
                await self.refresh()
            # Not wait_for: until Python 3.12 it swallows a cancel that comes with the bell.
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._bell.wait()
            self._bell.clear()

    def changed(self, _: bytes = b"") -> None:
        """A notice: read the catalog now, in the background."""
        self._bell.set()

    async def refresh(self) -> None:
        """Read the catalog now. Who waits for a read that is on its way goes with the next one, all together, and no
        further where that one finds no answer. Raises Unavailable."""
        begun, waits = self._begun, self._loading.locked()
        async with self._loading:
            if self._begun == begun and not (waits and self._away):
                await self._read()
            if self._away:
                raise no_database()

    async def _read(self) -> None:
        self._begun += 1
        self._away = True
        try:
            read = await store.run(self._engine, store.catalog, self._seen_within)
        except store.AWAY as error:
            log.warning("the catalog is not read: %s", error)
        else:
            self._lineup.update(read)
            self._away = False

    async def route(self, model: str, sticky_key: str | None = None) -> Routed:
        """The version that `name`, `name@version` or `name:alias` means, and the alias' shadow unless that is the same
        version; the alias' weights are drawn anew each time, or by `sticky_key`. Raises NotFound for what the catalog
        does not hold even after a fresh look."""
        try:
            return self._lineup.route(model, sticky_key)
        except NotFound:
            await self.refresh()
            return self._lineup.route(model, sticky_key)

    def names(self) -> list[str]:
        return sorted(self._lineup.aliases)

    def describe(self, name: str, running: Mapping[tuple[str, str], int]) -> dict[str, Any] | None:
        """A model as the API shows it, with how many jobs run of each version; None for an unknown one."""
        if name not in self._lineup.aliases:
            return None
        return {
            "name": name,
            "aliases": {alias: describe_alias(routing) for alias, routing in self._lineup.aliases[name].items()},
            "versions": [self._shown(version, running) for version in self.versions(name)],
            "running": sum(count for (model, _), count in running.items() if model == name),
            "paused": name in self._lineup.paused.models,
        }

    def describe_version(
        self, name: str, version: str, running: Mapping[tuple[str, str], int]
    ) -> dict[str, Any] | None:
        known = self._lineup.known.get((name, version))
        return None if known is None else {"name": name, **self._shown(known.version, running)}

    def versions(self, name: str | None = None) -> list[store.Version]:
        """The versions of a model, or all."""
        return [known.version for (model, _), known in self._lineup.known.items() if name in (None, model)]

    @property
    def paused(self) -> store.Paused:
        return self._lineup.paused

    def _shown(self, version: store.Version, running: Mapping[tuple[str, str], int]) -> dict[str, Any]:
        return {
            **_shown(version),
            "running": running.get((version.model, version.version), 0),
            "paused": f"{version.model}@{version.version}" in self._lineup.paused.versions,
        }


def describe_alias(routing: Routing) -> dict[str, Any]:
    return {"weights": dict(routing.weights), "shadow": routing.shadow}


def _shown(version: store.Version) -> dict[str, Any]:
    return {
        "version": version.version,
        "pool": version.pool,
        "input_type": version.input_type,
        "output_type": version.output_type,
        "input_schema": version.input_schema,
        "output_schema": version.output_schema,
        "limits": {
            "max_batch": version.max_batch,
            "max_wait": version.max_wait,
            "max_cost": version.max_cost,
            "timeout": version.timeout,
        },
        "example": version.example,
        "artifact": version.artifact,
        "workers": [{**worker, "id": to_text("wrk", UUID(worker["id"]))} for worker in version.workers],
    }
