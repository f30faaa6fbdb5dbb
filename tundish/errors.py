"""What can go wrong for a caller, as RFC 9457 problems. Only `api/app.py` renders them.

Problem
├── BadRequest          400  the body cannot be parsed
├── Unauthorized        401  no key, or a wrong one
├── NotFound            404  the tenant has no such thing
├── Conflict            409  its state forbids it
├── TooLarge            413  the body is over TUNDISH_MAX_BODY, or over what its upload was made for
├── WrongType           415  the model, or the call, does not take that content type or coding
├── OutOfRange          416  the file ends before the range that is asked for
├── Refused             422  what can be read and is refused, and an upload that cannot
└── Unavailable         503  come back after `retry_after` seconds
"""

from dataclasses import dataclass, field


@dataclass
class Problem(Exception):
    """`code` is stable; `detail` says what to do; `errors` are {"pointer", "detail"} (RFC 6901 pointers)."""

    code: str
    detail: str
    errors: list[dict[str, str]] = field(default_factory=list)
    retry_after: int | None = None

    status = 500

    def __str__(self) -> str:
        return self.detail

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


class BadRequest(Problem):
    status = 400


class Unauthorized(Problem):
    status = 401


class NotFound(Problem):
    status = 404


class Conflict(Problem):
    status = 409


class TooLarge(Problem):
    status = 413


class WrongType(Problem):
    status = 415


@dataclass
class OutOfRange(Problem):
    size: int = 0  # bytes that the file has

    status = 416

    @property
    def headers(self) -> dict[str, str]:
        return {**super().headers, "content-range": f"bytes */{self.size}"}


class Refused(Problem):
    status = 422

    @property
    def details(self) -> dict[str, object] | None:
        """Where its first fault is, as the error of a job says it."""
        pointer = self.errors[0]["pointer"] if self.errors else ""
        return {"pointer": pointer} if pointer else None


class Unavailable(Problem):
    status = 503
