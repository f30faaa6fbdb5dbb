"""Standard Webhooks 1.0.0: how a webhook is signed, and how its receiver checks it. The standard library alone."""

import base64
import binascii
import hmac
import os
import time
from collections.abc import Mapping, Sequence

#: What an endpoint can subscribe to.
EVENTS = (
    "job.started",
    "job.succeeded",
    "job.failed",
    "job.canceled",
    "batch.succeeded",
    "batch.failed",
    "batch.canceled",
    "batch.expired",
)


class InvalidSignature(ValueError):
    """The webhook was not sent by who holds the secret, or too long ago."""


def new_secret() -> str:
    """`whsec_` and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def sign(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`; `timestamp` in seconds since 1970."""
    signed = hmac.digest(_key(secret), f"{id}.{timestamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(signed).decode()


def headers(secrets: Sequence[str], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a webhook; during a rotation it is signed with the old and the new secret."""
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(secret, id, timestamp, body) for secret in secrets),
    }


def verify(
    secret: str, headers: Mapping[str, str], body: bytes, *, tolerance: float = 300.0, now: float | None = None
) -> None:
    """Check what a receiver got; `tolerance` is how many seconds its timestamp may be off. Raises InvalidSignature."""
    given = {name.lower(): value for name, value in headers.items()}
    try:
        id, stamp = given["webhook-id"], given["webhook-timestamp"]
        signatures = given["webhook-signature"].split(" ")
        timestamp = int(stamp)
        off = abs((time.time() if now is None else now) - timestamp)
        id.encode()
    except (KeyError, ValueError, OverflowError):
        raise InvalidSignature("webhook-id, webhook-timestamp and webhook-signature are required") from None
    if off > tolerance:
        raise InvalidSignature("the timestamp is too far from now")
    expected = sign(secret, id, timestamp, body).encode()
    if not any(hmac.compare_digest(expected, each.encode(errors="replace")) for each in signatures):
        raise InvalidSignature("no signature matches")


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("a webhook secret is whsec_ and base64") from None
