"""Models, their versions and aliases, and the workers that serve them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from tundish.routing import Routing
from tundish.store.pauses import Paused, paused
from tundish.version import Version


class Catalog(NamedTuple):
    """All of the catalog, as the API holds it in memory: versions by (model, version), and by model each alias."""

    versions: dict[tuple[str, str], Version]
    aliases: dict[str, dict[str, Routing]]
    paused: Paused


_REGISTER = text("""
    INSERT INTO versions (model, version, pool, input_type, output_type, input_schema, output_schema, max_batch,
                          max_wait, max_cost, timeout, example, artifact)
    VALUES (:model, :version, :pool, :input_type, :output_type, :input_schema, :output_schema, :max_batch, :max_wait,
            :max_cost, :timeout, :example, :artifact)
    ON CONFLICT (model, version) DO UPDATE SET
        pool = EXCLUDED.pool, input_type = EXCLUDED.input_type, output_type = EXCLUDED.output_type,
        input_schema = EXCLUDED.input_schema, output_schema = EXCLUDED.output_schema,
        max_batch = EXCLUDED.max_batch, max_wait = EXCLUDED.max_wait, max_cost = EXCLUDED.max_cost,
        timeout = EXCLUDED.timeout, example = EXCLUDED.example, artifact = EXCLUDED.artifact
""")
_DEFAULT = text("""
    INSERT INTO aliases (model, alias, weights) VALUES (:model, 'default', :weights) ON CONFLICT DO NOTHING
""")
_KNOWN = text("""
    SELECT input_type, output_type, input_schema, output_schema, artifact FROM versions
    WHERE model = :model AND version = :version
""")


def _promises(version: Any) -> Any:
    """What a version promises to its callers, as JSON has it."""
    return json.loads(
        json.dumps([version.input_type, version.output_type, version.input_schema, version.output_schema])
    )


def register(connection: Connection, versions: Sequence[Version]) -> list[Version]:
    """Write versions to the catalog. The first version of a model becomes its alias `default`; later ones never move
    it. Gives those that were known with another schema or artifact."""
    changed = []
    # All workers that start write in one order, whatever theirs is: none waits for one that waits for it.
    for one in sorted(versions, key=lambda each: (each.model, each.version)):
        known = connection.execute(_KNOWN, {"model": one.model, "version": one.version}).one_or_none()
        artifacts = {known.artifact, one.artifact} if known and known.artifact else set()
        if known and (_promises(known) != _promises(one) or len(artifacts) > 1):
            changed.append(one)
        row = {name: getattr(one, name) for name in Version.__dataclass_fields__ if name != "workers"}
        for name in ("input_schema", "output_schema", "example"):
            row[name] = None if row[name] is None else json.dumps(row[name])
        connection.execute(_REGISTER, row)
    for one in sorted(versions, key=lambda each: each.model):  # of each model the first that is given comes first
        connection.execute(_DEFAULT, {"model": one.model, "weights": json.dumps({one.version: 100})})
    return changed


def catalog(connection: Connection, seen_within: float) -> Catalog:
    """The whole catalog; a worker counts as serving where it was seen within so many seconds, and is neither stopped
    nor lost."""
    rows = connection.execute(
        text("""
            SELECT v.model, v.version, v.pool, v.input_type, v.output_type, v.input_schema, v.output_schema,
                   v.max_batch, v.max_wait, v.max_cost, v.timeout, v.example, v.artifact,
                   (SELECT COALESCE(json_agg(json_build_object('id', w.id, 'pool', w.pool, 'device', w.device)
                                             ORDER BY w.id), '[]')
                    FROM workers w WHERE v.model || '@' || v.version = ANY(w.models)
                    AND w.state NOT IN ('stopped', 'lost') AND w.seen_at > now() - :seen * interval '1 second')
            FROM versions v ORDER BY v.model, v.registered_at, v.version
        """),
        {"seen": seen_within},
    )
    versions = {(row[0], row[1]): Version(*row) for row in rows}
    aliases: dict[str, dict[str, Routing]] = {}
    for model, alias, weights, shadow in connection.execute(text("SELECT model, alias, weights, shadow FROM aliases")):
        aliases.setdefault(model, {})[alias] = Routing(weights, shadow)
    return Catalog(versions, aliases, paused(connection))


def route(connection: Connection, model: str, alias: str, routing: Routing) -> None:
    """Let an alias mean `routing` from now on."""
    connection.execute(
        text("""
            INSERT INTO aliases (model, alias, weights, shadow) VALUES (:model, :alias, :weights, :shadow)
            ON CONFLICT (model, alias) DO UPDATE SET weights = EXCLUDED.weights, shadow = EXCLUDED.shadow
        """),
        {"model": model, "alias": alias, "weights": json.dumps(dict(routing.weights)), "shadow": routing.shadow},
    )


@dataclass(frozen=True, slots=True)
class Worker:
    """One boot of a worker process; `models` are `name@version`; `state` is idle, busy, draining or stopped, and lost
    where its device is gone or it is no longer seen. Memory is the device's, in bytes; `batch_size` counts the jobs of
    its last batch, `jobs_per_s` what it ended lately, and one of them took `job_ms` of the device's time. `places` tell
    of each model the `place` where it lies, the `bytes` that it takes of the device while it is there, and the `error`
    that kept it from there."""

    id: UUID
    pool: str
    device: str
    host: str
    pid: int
    models: list[str]
    state: str
    memory_total: int | None = None
    memory_used: int | None = None
    batch_size: int | None = None
    jobs_per_s: float | None = None
    job_ms: float | None = None
    places: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen_at: datetime | None = None


#: Seconds that a worker's row, with what it measured, is kept after it was last seen.
WORKER_KEPT = 86400.0
#: What a worker writes once, and what changes with each heart-beat.
_FIXED = "id pool device host pid".split()
_CHANGING = "models state memory_total memory_used batch_size jobs_per_s job_ms places".split()
_SEE = text(f"""
    INSERT INTO workers ({", ".join(_FIXED + _CHANGING)})
    VALUES ({", ".join(f":{name}" for name in _FIXED + _CHANGING)})
    ON CONFLICT (id) DO UPDATE SET seen_at = now(), {", ".join(f"{name} = EXCLUDED.{name}" for name in _CHANGING)}
    RETURNING NOT EXISTS (
        SELECT FROM unnest(models) AS served
        WHERE NOT EXISTS (SELECT FROM versions WHERE model || '@' || version = served)
    )
""")


def see_worker(connection: Connection, worker: Worker) -> bool:
    """Write a worker's presence, by the database's clock. Whether the catalog has its models: one that was restored
    from an old copy may lack them."""
    row = {name: getattr(worker, name) for name in _FIXED + _CHANGING}
    return bool(connection.execute(_SEE, {**row, "places": json.dumps(worker.places)}).scalar_one())


def workers(connection: Connection, *, seen_within: float, lost_after: float | None = None) -> list[Worker]:
    """The workers that were seen within so many seconds; one that was not for `lost_after` of them, and did not say
    that it stops, is lost."""
    rows = connection.execute(
        text("""
            SELECT id, pool, device, host, pid, models,
                   CASE WHEN state <> 'stopped' AND seen_at < now() - CAST(:lost AS float8) * interval '1 second'
                        THEN 'lost' ELSE state END,
                   memory_total, memory_used, batch_size, jobs_per_s, job_ms, places, seen_at
            FROM workers WHERE seen_at > now() - :seen * interval '1 second' ORDER BY id
        """),
        {"seen": seen_within, "lost": lost_after},
    )
    return [Worker(*row) for row in rows]


def forget_workers(connection: Connection) -> None:
    """Delete what has not been seen for WORKER_KEPT seconds."""
    connection.execute(
        text("DELETE FROM workers WHERE seen_at < now() - :unseen * interval '1 second'"), {"unseen": WORKER_KEPT}
    )
