"""Webhook endpoints that a tenant registered, and the secrets that sign what goes to them."""

import json
import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from tundish.store.arrays import Rows

#: Seconds that a secret goes on signing, beside the new one, after it was rotated away.
ROTATION = 86400.0
#: Retired secrets that are kept at most: a signature for each goes into every request.
_RETIRED = 4


class Endpoint(NamedTuple):
    """Where a tenant wants to be told of `events`."""

    id: UUID
    tenant: int
    url: str
    events: list[str]
    enabled: bool = True


_ROW = ", ".join(Endpoint._fields)


def add_endpoint(connection: Connection, endpoint: Endpoint, secret: str, *, most: int) -> bool:
    """False where the tenant has `most` already."""
    added = connection.execute(
        text(f"""
            INSERT INTO endpoints ({_ROW}, secret)
            SELECT :id, :tenant, :url, :events, :enabled, :secret
            WHERE (SELECT count(*) FROM endpoints WHERE tenant = :tenant) < :most
        """),
        {**endpoint._asdict(), "secret": secret, "most": most},
    )
    return added.rowcount == 1


def endpoint(connection: Connection, tenant: int, id: UUID) -> Endpoint | None:
    row = connection.execute(
        text(f"SELECT {_ROW} FROM endpoints WHERE id = :id AND tenant = :tenant"),
        {"id": id, "tenant": tenant},
    ).one_or_none()
    return None if row is None else Endpoint(*row)


def endpoints(connection: Connection, tenant: int, *, before: UUID, limit: int) -> list[Endpoint]:
    """Newest first, ids under `before`."""
    rows = connection.execute(
        text(f"""
            SELECT {_ROW} FROM endpoints WHERE tenant = :tenant AND id < :before ORDER BY id DESC LIMIT :limit
        """),
        {"tenant": tenant, "before": before, "limit": limit},
    )
    return [Endpoint(*row) for row in rows]


def change_endpoint(
    connection: Connection,
    tenant: int,
    id: UUID,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> Endpoint | None:
    """Change what is given; the endpoint as it is now."""
    row = connection.execute(
        text(f"""
            UPDATE endpoints SET url = COALESCE(:url, url), events = COALESCE(CAST(:events AS text[]), events),
                   enabled = COALESCE(:enabled, enabled)
            WHERE id = :id AND tenant = :tenant RETURNING {_ROW}
        """),
        {
            "id": id,
            "tenant": tenant,
            "url": url,
            "events": None if events is None else list(events),
            "enabled": enabled,
        },
    ).one_or_none()
    return None if row is None else Endpoint(*row)


def remove_endpoint(connection: Connection, tenant: int, id: UUID) -> bool:
    """What waits for it becomes dead letters as the courier comes to it."""
    gone = connection.execute(
        text("DELETE FROM endpoints WHERE id = :id AND tenant = :tenant"), {"id": id, "tenant": tenant}
    )
    return gone.rowcount == 1


class Gone(NamedTuple):
    """An endpoint whose receiver said, at this URL, that it is gone (410)."""

    id: UUID
    url: str


_GONE = Rows({"id": "uuid", "url": "text"})
_DISABLE = text(f"""
    UPDATE endpoints e SET enabled = false FROM {_GONE.sql} WHERE e.id = given.id AND e.url = given.url
""")


def disable_endpoints(connection: Connection, gone: Collection[Gone]) -> None:
    """One that has another URL by now stays as it is."""
    connection.execute(_DISABLE, _GONE.given(list(gone)))


def subscribed(connection: Connection, tenants: Collection[int]) -> list[Endpoint]:
    """The enabled endpoints of tenants."""
    rows = connection.execute(
        text(f"SELECT {_ROW} FROM endpoints WHERE enabled AND tenant = ANY(:tenants)"),
        {"tenants": list(tenants)},
    )
    return [Endpoint(*row) for row in rows]


def rotate_secret(connection: Connection, tenant: int, id: UUID, new: str) -> Endpoint | None:
    """Sign with `new` from now on, and with the secret before for ROTATION seconds more."""
    row = connection.execute(
        text("SELECT secret, retired FROM endpoints WHERE id = :id AND tenant = :tenant FOR UPDATE"),
        {"id": id, "tenant": tenant},
    ).one_or_none()
    if row is None:
        return None
    connection.execute(
        text("UPDATE endpoints SET secret = :new, retired = :retired WHERE id = :id"),
        {"id": id, "new": new, "retired": _retire(row.secret, row.retired)},
    )
    return endpoint(connection, tenant, id)


def default_secret(connection: Connection, tenant: int) -> str:
    """What signs the webhooks of a tenant's jobs."""
    secret: str = connection.execute(
        text("SELECT webhook_secret FROM tenants WHERE id = :tenant"), {"tenant": tenant}
    ).scalar_one()
    return secret


def rotate_default_secret(connection: Connection, tenant: int, new: str) -> None:
    """As `rotate_secret`, for the tenant's default."""
    row = connection.execute(
        text("SELECT webhook_secret, retired FROM tenants WHERE id = :tenant FOR UPDATE"), {"tenant": tenant}
    ).one()
    connection.execute(
        text("UPDATE tenants SET webhook_secret = :new, retired = :retired WHERE id = :tenant"),
        {"tenant": tenant, "new": new, "retired": _retire(row.webhook_secret, row.retired)},
    )


def signing(secret: str, retired: Sequence[dict[str, Any]]) -> list[str]:
    """The secrets that sign now, the newest first."""
    if not retired:
        return [secret]
    return [secret, *(each["secret"] for each in retired if each["until"] > time.time())]


def _retire(secret: str, retired: Sequence[dict[str, Any]]) -> str:
    now = time.time()
    kept = [each for each in retired if each["until"] > now]
    return json.dumps([{"secret": secret, "until": now + ROTATION}, *kept][:_RETIRED])
