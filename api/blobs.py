"""Signed URLs of the blob directory. With S3 there is nothing to serve: its URLs lead to the bucket."""

import os
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import FileResponse, MalformedRangeHeader, RangeNotSatisfiable, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.http import known_parameters, not_encoded
from api.parts import Parts
from api.patience import no_blobs, of_blobs, of_blobs_at_length
from tundish.blobs import (
    CHUNK,
    Arrival,
    BadSignature,
    BlobMissing,
    BlobRefused,
    BlobTooLarge,
    BlobUnavailable,
    Directory,
)
from tundish.errors import BadRequest, NotFound, OutOfRange, Refused, TooLarge, Unauthorized, Unavailable

#: A payload is data: a browser must not run it in our origin.
INERT = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox; default-src 'none'"}


class BlobFiles:
    """Handlers over the parts of one application."""

    def __init__(self, parts: Parts) -> None:
        self._blobs = parts.blobs

    def routes(self) -> list[Route]:
        path = "/v1/blobs/{key:path}"
        return [Route(path, self.get, methods=["GET"]), Route(path, self.put, methods=["PUT"])]

    async def get(self, request: Request) -> Response:
        given = known_parameters(request, ("type", "expires", "signature"))
        try:
            found = await of_blobs(self._directory().open_signed, request.path_params["key"], given)
        except BadSignature as error:
            raise Unauthorized("unauthorized", str(error)) from error
        except BlobMissing as error:
            raise NotFound("not_found", str(error)) from error
        except BlobUnavailable as error:
            raise no_blobs() from error
        return _File(found.file, {**INERT, "content-type": found.content_type})

    async def put(self, request: Request) -> Response:
        """The body of an upload, to the disk as it arrives."""
        given = known_parameters(request, ("type", "size", "sha256", "expires", "signature"))
        try:
            arrival = await of_blobs_at_length(self._directory().receive, request.path_params["key"], given)
            try:
                await _receive(request, arrival, given)
            finally:
                await of_blobs_at_length(arrival.discard)
        except BadSignature as error:
            raise Unauthorized("unauthorized", str(error)) from error
        except BlobMissing as error:
            raise NotFound("not_found", str(error)) from error
        except BlobTooLarge as error:
            raise TooLarge("upload_too_large", str(error)) from error
        except BlobRefused as error:
            raise Refused("upload_mismatch", str(error)) from error
        except BlobUnavailable as error:
            raise Unavailable(
                "unavailable", "the store of uploads cannot take it now; try again", retry_after=2
            ) from error
        return Response()

    def _directory(self) -> Directory:
        if not isinstance(self._blobs, Directory):
            raise NotFound("not_found", "blobs lie in S3; ask for the job's result")
        return self._blobs


class _File(FileResponse):
    """Starlette's, of a file that is open and may be deleted meanwhile; and but for a range that it refuses, in plain
    text."""

    def __init__(self, file: BinaryIO, headers: dict[str, str]) -> None:
        descriptor = file.fileno()
        super().__init__(f"/dev/fd/{descriptor}", headers=headers, stat_result=os.fstat(descriptor))
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # which knows no ranges (RFC 9110, 14.2)
            scope = {**scope, "headers": [field for field in scope["headers"] if field[0] != b"range"]}
        with self._file:
            await super().__call__(scope, receive, send)

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []  # of another unit, or none at all: as if it were not there (RFC 9110, 14.2)
        except RangeNotSatisfiable as error:
            detail = f"the file ends after {file_size} bytes"
            raise OutOfRange("range_not_satisfiable", detail, size=file_size) from error

    @classmethod
    def _parse_ranges(cls, range_: str, file_size: int) -> list[tuple[int, int]]:
        """Of several, those that begin in the file, where any does (RFC 9110, 15.5.17)."""
        found = super()._parse_ranges(range_, file_size)
        return [each for each in found if each[0] < file_size] or found


async def _receive(request: Request, arrival: Arrival, given: dict[str, str]) -> None:
    not_encoded(request)
    if "content-range" in request.headers:
        raise BadRequest("wrong_headers", "send all of the file at once, without Content-Range")
    if request.headers.get("content-type", "") != given["type"]:
        raise BadRequest("wrong_headers", "send the headers that came with the URL along: Content-Type is not the same")
    pieces, waiting = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        waiting += len(piece)
        if waiting >= CHUNK:
            await of_blobs_at_length(arrival.write, b"".join(pieces))
            pieces, waiting = [], 0
    await of_blobs_at_length(arrival.write, b"".join(pieces))
    await of_blobs_at_length(arrival.keep)
