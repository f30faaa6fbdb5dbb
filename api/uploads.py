"""`POST /v1/uploads`: a signed PUT for what is too large for a request's body."""

import asyncio
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.http import encoded, json_body, known_parameters
from api.parts import Parts
from tundish import store
from tundish.blobs import UPLOAD_MAX, upload_key
from tundish.ids import new_uuid, to_text
from tundish.media import TYPE, TYPE_MAX
from tundish.view import rfc3339

#: Seconds that the URL holds, and that jobs may name the upload.
EXPIRES_IN = 86400
#: Seconds more in which a PUT that began in time may end.
GRACE = 3600.0


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/uploads`."""

    content_type: Annotated[str, Meta(max_length=TYPE_MAX, pattern=TYPE, description="is kept")]
    size: Annotated[int, Meta(ge=0, le=UPLOAD_MAX, description="bytes")]
    sha256: (
        Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$", max_length=64, description="of the bytes, in hex")] | None
    ) = None


class UploadView(msgspec.Struct):
    """Send the bytes by `method` to `url`, with `headers` along and no key; name `id` in jobs until `expires_at`."""

    id: str
    method: str
    url: str
    headers: dict[str, str]
    expires_at: str


class Uploads:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [Route("/v1/uploads", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response:
        known_parameters(request, ())
        wanted = await json_body(request, self._parts.settings.max_body, Wanted, "an upload")
        id, tenant, sha256 = new_uuid(), request.state.tenant, wanted.sha256 and wanted.sha256.lower()
        new = store.NewUpload(id, tenant, wanted.content_type, wanted.size, sha256, EXPIRES_IN)
        expires_at = await self._parts.run(store.new_upload, new, grace=GRACE)
        url, headers = await asyncio.to_thread(
            self._parts.blobs.put_url, upload_key(tenant, id), new.content_type, new.size, sha256, EXPIRES_IN
        )
        return encoded(UploadView(to_text("upl", id), "PUT", url, headers, rfc3339(expires_at)), 201)
