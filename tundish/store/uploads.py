"""Uploads: blobs that callers put themselves, to be named by jobs and batches."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text


class NewUpload(NamedTuple):
    """What a caller wants to put: `size` bytes, with this SHA-256 (hex) where it is given, within `expires_in` s."""

    id: UUID
    tenant: int
    content_type: str
    size: int
    sha256: str | None
    expires_in: float


class Upload(NamedTuple):
    """An upload as it was asked for; `etag` pins the bytes whose size and SHA-256 were last found to be right."""

    id: UUID
    tenant: int
    content_type: str
    size: int
    sha256: str | None
    etag: str | None
    expired: bool


def new_upload(connection: Connection, new: NewUpload, *, grace: float) -> datetime:
    """When it expires, by the database's clock; what arrives late is kept `grace` seconds more, to be deleted then."""
    at: datetime = connection.execute(
        text("""
            INSERT INTO uploads (id, tenant, content_type, size, sha256, expires_at, kept_until)
            VALUES (:id, :tenant, :content_type, :size, :sha256, now() + :expires_in * interval '1 second',
                    now() + (:expires_in + :grace) * interval '1 second')
            RETURNING expires_at
        """),
        {**new._asdict(), "grace": grace},
    ).scalar_one()
    return at


def read_upload(connection: Connection, tenant: int, id: UUID) -> Upload | None:
    """None where the tenant has none such."""
    row = connection.execute(
        text("""
            SELECT id, tenant, content_type, size, sha256, etag, expires_at < now()
            FROM uploads WHERE id = :id AND tenant = :tenant
        """),
        {"id": id, "tenant": tenant},
    ).one_or_none()
    return None if row is None else Upload(*row)


def keep_upload(connection: Connection, tenant: int, id: UUID, *, etag: str, keep: float) -> bool:
    """Something reads the bytes of `etag`: keep them `keep` seconds from now on, or longer where that was said before.
    False where the upload has expired meanwhile."""
    kept = connection.execute(
        text("""
            UPDATE uploads SET etag = :etag, kept_until = GREATEST(kept_until, now() + :keep * interval '1 second')
            WHERE id = :id AND tenant = :tenant AND expires_at >= now() RETURNING true
        """),
        {"id": id, "tenant": tenant, "etag": etag, "keep": keep},
    ).scalar()
    return bool(kept)


def past_uploads(connection: Connection, *, limit: int) -> list[tuple[UUID, int]]:
    """The (id, tenant) of a page of uploads that nobody needs any more: nothing makes one needed again."""
    rows = connection.execute(
        text("SELECT id, tenant FROM uploads WHERE kept_until < now() ORDER BY kept_until LIMIT :limit"),
        {"limit": limit},
    )
    return [(row.id, row.tenant) for row in rows]


def delete_upload(connection: Connection, id: UUID) -> None:
    connection.execute(text("DELETE FROM uploads WHERE id = :id"), {"id": id})
