"""What is paused: jobs of it are accepted and wait."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from sqlalchemy import Connection, text

Kind = Literal["pool", "model", "version"]
#: `pause` and `resume`.
Halt = Callable[[Connection, Kind, str], None]


class Paused(NamedTuple):
    """The names of all that is paused; of versions `model@version`."""

    pools: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    versions: frozenset[str] = frozenset()

    def holds(self, pool: str, model: str, version: str) -> bool:
        """Whether a worker of `pool` may not run a version, for its own sake or its model's or pool's."""
        return pool in self.pools or model in self.models or f"{model}@{version}" in self.versions


def paused(connection: Connection) -> Paused:
    names: dict[str, set[str]] = {"pool": set(), "model": set(), "version": set()}
    for kind, name in connection.execute(text("SELECT kind, name FROM pauses")):
        names[kind].add(name)
    return Paused(*(frozenset(names[kind]) for kind in ("pool", "model", "version")))


def pause(connection: Connection, kind: Kind, name: str) -> None:
    connection.execute(
        text("INSERT INTO pauses (kind, name) VALUES (:kind, :name) ON CONFLICT DO NOTHING"),
        {"kind": kind, "name": name},
    )


def resume(connection: Connection, kind: Kind, name: str) -> None:
    connection.execute(text("DELETE FROM pauses WHERE kind = :kind AND name = :name"), {"kind": kind, "name": name})
