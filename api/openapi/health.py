"""The calls that need no key."""

from api.openapi.calls import call

PATHS = {
    "/healthz": {"get": call("Liveness", answers={"200": {"description": "the process answers"}})},
    "/readyz": {
        "get": call(
            "Readiness, with reasons",
            answers={"200": {"description": "submits are taken"}, "503": {"description": "they are not"}},
        )
    },
    "/metrics": {"get": call("Figures for Prometheus", answers={"200": {"description": "text"}})},
}
