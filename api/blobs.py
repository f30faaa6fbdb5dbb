"""Signed URLs of the blob directory. With S3 there is nothing to serve: its URLs lead to the bucket."""

import asyncio

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from api.http import known_parameters
from api.parts import Parts
from tundish.blobs import BadSignature, BlobMissing, Directory
from tundish.errors import NotFound, Unauthorized

#: A payload is data: a browser must not run it in our origin.
INERT = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox; default-src 'none'"}


class BlobFiles:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._blobs = parts.blobs

    def routes(self) -> list[Route]:
        return [Route("/v1/blobs/{key:path}", self.get, methods=["GET"])]

    async def get(self, request: Request) -> Response:
        given = known_parameters(request, ("type", "expires", "signature"))
        if not isinstance(self._blobs, Directory):
            raise NotFound("not_found", "blobs lie in S3; ask for the job's result")
        key, type = request.path_params["key"], given.get("type", "")
        try:
            found = await asyncio.to_thread(
                self._blobs.open_signed,
                "GET",
                key,
                type,
                given.get("expires", ""),
                given.get("signature", ""),
            )
        except BadSignature as error:
            raise Unauthorized("unauthorized", str(error)) from error
        except BlobMissing as error:
            raise NotFound("not_found", str(error)) from error
        return FileResponse(found.path, headers={**INERT, "content-type": type})
