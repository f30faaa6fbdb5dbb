"""Under which keys blobs lie: what belongs together goes by its prefix."""

from uuid import UUID

from tundish.ids import time_of, to_text


def job_prefix(tenant: int, job: UUID) -> str:
    """Under which all blobs of a job lie."""
    return f"{day_prefix(tenant, f'{time_of(job):%Y%m%d}')}{to_text('job', job)}/"


def day_prefix(tenant: int, day: str) -> str:
    """Under which all blobs of a tenant's jobs of a day (`20261124`) lie."""
    return f"{tenant}/{day}/"


def key(tenant: int, job: UUID, attempt: int, name: str) -> str:
    """The key of a job's payload; attempt 0 is the submit."""
    return f"{job_prefix(tenant, job)}{attempt}/{name}"


def batch_prefix(tenant: int, batch: UUID) -> str:
    """Under which the files of a batch lie: with the jobs of its day."""
    return f"{day_prefix(tenant, f'{time_of(batch):%Y%m%d}')}{to_text('bat', batch)}/"


def upload_prefix(tenant: int, upload: UUID) -> str:
    """Under which an upload lies: under no day, for jobs of several days may read it."""
    return f"{tenant}/uploads/{to_text('upl', upload)}/"


def upload_key(tenant: int, upload: UUID) -> str:
    return f"{upload_prefix(tenant, upload)}body"


def artifact_key(sha256: str) -> str:
    """Where a file of an artifact lies, or its manifest: under no tenant, by what it holds."""
    return f"artifacts/sha256/{sha256}/body"
