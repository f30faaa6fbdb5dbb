"""The calls of `/v1/uploads`."""

from api.openapi.calls import answer, call, json_of
from api.uploads import UploadView, Wanted

TYPES = [Wanted, UploadView]

PATHS = {
    "/v1/uploads": {
        "post": call(
            "Get a signed PUT for an input of up to 5 GiB, which jobs then name by `upload`",
            body=json_of("Wanted"),
            answers={"201": answer("the upload", "UploadView")},
            refuses="400 401 413 415 422 503",
        )
    }
}
