"""A verb of the store, for a request."""

import logging
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from api.patience import no_database
from tundish import store

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


async def run(
    engine: store.AsyncEngine,
    verb: Callable[Concatenate[store.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run it in a transaction of its own. Raises Unavailable where Postgres does not answer."""
    try:
        return await store.run(engine, verb, *args, **kwargs)
    except store.AWAY as error:
        log.warning("Postgres does not answer: %s", error)
        raise no_database() from error
