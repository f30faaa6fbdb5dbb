"""The ASGI application. What every request passes: an id, its tenant, and one place that turns errors into problems."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route, Router
from starlette.types import Message, Receive, Scope, Send

from api.auth import needs_key, tenant_of
from api.batches import Batches
from api.blobs import BlobFiles
from api.catalog import Catalog
from api.compare import Compare
from api.deliveries import Deliveries
from api.docs import routes as docs_routes
from api.events import JobEvents
from api.health import Health
from api.http import WHOLE, answer, new_request_id, problem_response
from api.jobs import Jobs
from api.parts import Parts, build, running
from api.pools import Pools
from api.uploads import Uploads
from api.webhooks import Webhooks
from tundish.errors import Problem
from tundish.settings import Settings

log = logging.getLogger(__name__)


class _Gate:
    """Gives a request its id and tenant, and its problem an answer. A route is called as the router would call it, less
    the router and its two layers for exceptions, which are caught here."""

    def __init__(self, app: Router, parts: Parts, health: Health) -> None:
        self._app = app
        self._parts = parts
        self._health = health
        self._jobs = Jobs(parts)
        self._served: dict[str, list[Route]] = {}
        for route in self._routes():
            for method in route.methods or ():
                self._served.setdefault(method, []).append(route)

    def stop(self) -> None:
        """Answer who waits, and end the streams: the process is about to end."""
        self._parts.waiters.stop()

    def soon(self, scope: Scope, then: Callable[[Response | None], bool]) -> bool:
        """Of a request that waits for one read alone: `then` gets its answer, or None where it is to be called after
        all, and says whether it has sent it. False where it is to be called at once; that is also what finds the words
        for what is refused."""
        if scope["method"] != "GET" or scope["query_string"]:
            return False

        def answered(response: Response | None) -> None:
            if response:
                response.raw_headers.append((b"x-request-id", new_request_id().encode()))
            if then(response) and response:
                self._health.count("GET", response.status_code)

        try:
            return self._jobs.soon(scope, self._tenant(scope), answered)
        except Problem:
            return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # so that the router raises what it refuses
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] in ("http.response.start", WHOLE):
                started = True
                message["headers"].append((b"x-request-id", request_id.encode()))
                self._health.count(scope["method"], message["status"])
            await send(message)

        try:
            if needs_key(scope["path"]):
                scope["state"]["tenant"] = self._tenant(scope)
            if handler := self._handler(scope):
                await answer(await handler(Request(scope, receive, send)), scope, receive, sending)
            else:  # what is mounted, and what the router refuses
                await self._app(scope, receive, sending)
        except Problem as problem:
            await answer(_problem(problem, scope, request_id), scope, receive, sending)
        except HTTPException as refused:
            await answer(self._refusal(refused, scope, request_id), scope, receive, sending)
        except ClientDisconnect:
            log.debug("a client hung up while it sent its body", extra={"request": request_id})
        except Exception:
            log.exception("a request failed", extra={"request": request_id})
            if not started:
                fault = f"this is a fault of the service; its log has it under request {request_id}"
                await answer(_problem(Problem("internal", fault), scope, request_id), scope, receive, sending)

    def _tenant(self, scope: Scope) -> int:
        """Raises Unauthorized."""
        given = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                given = value
                break
        return tenant_of(given, self._parts.settings.api_key)

    def _handler(self, scope: Scope) -> Callable[[Request], Awaitable[Response]] | None:
        """That of the first route for the path and method of a request."""
        for route in self._served.get(scope["method"], ()):
            if match := route.path_regex.match(scope["path"]):
                given = match.groupdict().items()
                scope["path_params"] = {name: route.param_convertors[name].convert(text) for name, text in given}
                handler: Callable[[Request], Awaitable[Response]] = route.endpoint
                return handler
        return None

    def _refusal(self, error: HTTPException, scope: Scope, request_id: str) -> Response:
        """What Starlette's router refuses: a path or method that is not served."""
        codes = {404: "not_found", 405: "method_not_allowed"}
        methods = ", ".join(sorted(self._methods(scope)))
        details = {
            404: "nothing is served under this path; see /docs",
            405: f"{scope['method']} is not served here; these are: {methods}",
        }
        problem = Problem(codes.get(error.status_code, "bad_request"), details.get(error.status_code, error.detail))
        problem.status = error.status_code
        response = _problem(problem, scope, request_id)
        if problem.status == 405 and methods:
            response.headers["allow"] = methods
        return response

    def _methods(self, scope: Scope) -> set[str]:
        """Of a path, which may have a route for each: Starlette tells those of the first."""
        matching = [route for route in self._routes() if route.matches(scope)[0] is not Match.NONE]
        return {method for route in matching for method in route.methods or ()}

    def _routes(self) -> list[Route]:
        return [route for route in self._app.routes if isinstance(route, Route)]


def _problem(problem: Problem, scope: Scope, request_id: str) -> Response:
    response = problem_response(problem, scope["path"], request_id, HTTPStatus(problem.status).phrase)
    if problem.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def routes(parts: Parts) -> list[Route]:
    """What is served under /v1: each of these is in the OpenAPI document, but for the signed URLs of blobs."""
    return [
        *Jobs(parts).routes(),
        *JobEvents(parts).routes(),
        *Catalog(parts).routes(),
        *Compare(parts).routes(),
        *Pools(parts).routes(),
        *Uploads(parts).routes(),
        *Webhooks(parts).routes(),
        *Deliveries(parts).routes(),
        *Batches(parts).routes(),
        *BlobFiles(parts).routes(),
    ]


def create(settings: Settings) -> _Gate:
    """The application; it connects when its lifespan begins. Raises SettingError."""
    parts = build(settings)
    health = Health(parts)

    served = [*routes(parts), *health.routes(), *docs_routes()]

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        async with running(parts):
            yield

    return _Gate(Router(served, redirect_slashes=False, lifespan=lifespan), parts, health)
