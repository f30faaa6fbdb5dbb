"""Who calls: the tenant of the key in `Authorization: Bearer KEY`."""

import hmac

from tundish.errors import Unauthorized
from tundish.store import DEFAULT_TENANT

#: What needs no key. Blob URLs carry a signature of their own.
OPEN = ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/blobs/")


def tenant_of(authorization: bytes, api_key: str) -> int:
    """The tenant that may act; an empty `api_key` asks for none. Compared in constant time. Raises Unauthorized."""
    if not api_key:
        return DEFAULT_TENANT
    scheme, _, given = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        raise Unauthorized("unauthorized", "send the header Authorization: Bearer KEY")
    if not hmac.compare_digest(given.strip(), api_key.encode()):
        raise Unauthorized("unauthorized", "this key is not valid here")
    return DEFAULT_TENANT


def needs_key(path: str) -> bool:
    return not path.startswith(OPEN)
