"""The call that follows a job."""

from api.openapi.calls import ID, call

_RESUME = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "the id of the last event that was received: only what comes behind it is sent",
    "schema": {"type": "string", "pattern": "^([0-9]+-[0-9]+|end)$"},
}
_STREAM = """\
Server-sent events. `status` (the job) first and, when it has ended, last; between them `progress` ({"progress": 0.5}),
`output` ({"piece": ..., "attempt": 1}) and `log` ({"text": "..."}), and a `status` where the job has moved. Without
Last-Event-ID the events of the present attempt are repeated from its start. A new attempt voids earlier pieces; so does
a new "run", which a piece names from the second on: the batch was divided and predicted again. A gap in the ids shows
that events were lost; the job's output is what predict returned. Comments are heart-beats."""

PATHS = {
    "/v1/jobs/{id}/events": {
        "get": call(
            "Follow a job: status, progress, log and pieces of the output, as they come",
            parameters=[ID, _RESUME],
            answers={
                "200": {"description": _STREAM, "content": {"text/event-stream": {"schema": {"type": "string"}}}},
                "204": {"description": "the last event has been received: there are no more"},
            },
            refuses="401 404 422 503",
        )
    }
}
