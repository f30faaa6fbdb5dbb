"""Engines, and running a verb."""

import select
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

import sqlalchemy
from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.exc import DataError as RowError
from sqlalchemy.exc import DBAPIError as StoreError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from tundish.store.arrays import array
from tundish.store.stall import guard

__all__ = [
    "AWAY",
    "DEFAULT_TENANT",
    "AsyncEngine",
    "Connection",
    "Engine",
    "RowError",
    "StoreError",
    "async_engine",
    "autocommit",
    "bare",
    "demoted",
    "engine",
    "lock_timed_out",
    "run",
    "span",
]

P = ParamSpec("P")
T = TypeVar("T")

#: The one tenant of a plain installation.
DEFAULT_TENANT = 1
#: What `run` raises where Postgres does not answer or take a statement, or no connection is free in time.
AWAY = (StoreError, sqlalchemy.exc.TimeoutError, OSError)

#: Seconds that the server gives a statement, and seconds after which one without an answer is given up: no thread may
#: hang on a stalled server. The API's callers wait for a connection too, and must have their answer within 10 s.
#: Errors hide their parameters: payloads do not belong into logs.
_STATEMENT, _STALLED = 8, 9.0
_API_STATEMENT, _API_STALLED, _API_POOL = 5, 6.0, 2.0


#: One plan of a statement serves all calls, also one that was made while the tables were empty: so none may scan a
#: table. To plan what the courier takes costs Postgres 10 ms, and eight times so before it takes one plan by itself.
_PLANNED_ONCE = " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
#: For connections whose statements all take arrays of ids. The planner guesses that few ids come, and that fewer of
#: their jobs run, and nests a loop in a loop: record took 713 ms for 1,024 jobs, and so it takes 26.
_NO_LOOPS = " -c enable_nestloop=off"


def engine(url: str, pool: int = 4, *, by_ids: bool = False, autocommit: bool = False) -> Engine:
    """For workers and chores; `by_ids` where every verb takes arrays of ids, `autocommit` where every verb is one
    statement: it commits itself, and spares the trips for BEGIN and COMMIT. A thread that finds no connection waits for
    one: those of the others are given up in time where the server stalls."""
    made = sqlalchemy.create_engine(
        _dialect(url),
        pool_size=pool,
        max_overflow=2,
        pool_timeout=None,
        pool_use_lifo=True,
        connect_args=_connect(_STATEMENT, by_ids),
        hide_parameters=True,
        **_transactions(autocommit),
    )
    guard(made, _STALLED)
    event.listen(made, "checkout", _checked)
    event.listen(made, "handle_error", _told)
    return made


def autocommit(engine: Engine) -> Engine:
    """The same connections, for verbs of one statement, here and there; what does nothing else has an engine that is
    made so, which spares switching them."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def async_engine(
    url: str, pool: int = 8, *, by_ids: bool = False, planned_once: bool = False, autocommit: bool = False
) -> AsyncEngine:
    """For the API and the courier; `by_ids` and `autocommit` as for `engine`. `planned_once` is for statements that are
    few and of which each comes again and again: one plan of each holds, whatever the tables hold by then."""
    made = create_async_engine(
        _dialect(url),
        pool_size=pool,
        max_overflow=0,
        pool_use_lifo=True,
        pool_timeout=_API_POOL,
        connect_args=_connect(_API_STATEMENT, by_ids, planned_once),
        hide_parameters=True,
        **_transactions(autocommit),
    )
    guard(made.sync_engine, _API_STALLED)
    event.listen(made.sync_engine, "checkout", _checked)
    event.listen(made.sync_engine, "handle_error", _told)
    return made


async def run(
    engine: AsyncEngine, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a verb in a transaction of its own, committed when this returns."""

    def transact() -> T:
        with engine.sync_engine.begin() as connection:
            return verb(connection, *args, **kwargs)

    # In one greenlet: AsyncConnection makes one for each of its calls (0.09 ms a transaction).
    return await greenlet_spawn(transact)


def lock_timed_out(error: Exception) -> bool:
    """Whether a statement failed because it waited too long for what another transaction holds."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == "55P03"


def demoted(error: BaseException | None) -> bool:
    """Whether the server of a connection takes no writes, as one whose place another has taken: the next connection may
    lead to that one, and this one never does."""
    return getattr(error, "sqlstate", None) == "25006"


def gone(driver: Any) -> bool:
    """Whether the server has closed a connection of the driver's while nothing was asked of it, as when it was started
    again: what is asked next would fail, though the server is back."""
    looks = select.poll()
    looks.register(driver.pgconn.socket, select.POLLIN)
    try:
        while looks.poll(0):  # its last words, then the end
            driver.pgconn.consume_input()
    except driver.OperationalError:
        return True
    return False


def bare(error: BaseException) -> None:
    """Take the statement out of the text of an error that is not its fault: while Postgres is away, forty lines of SQL
    a try would bury in the log what ails it."""
    if isinstance(error, StoreError):
        error.statement = None
        error.code = None  # type: ignore[assignment]  # that of a page which explains the driver's errors


def _checked(connection: Any, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
    """Of a pool: another takes its place."""
    if gone(record.driver_connection):
        raise sqlalchemy.exc.DisconnectionError("the server has closed it")


def _told(context: ExceptionContext) -> None:
    if demoted(context.original_exception):
        context.is_disconnect = True
    if context.sqlalchemy_exception and (context.is_disconnect or context.connection is None):
        bare(context.sqlalchemy_exception)


def _transactions(autocommit: bool) -> dict[str, Any]:
    return {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True} if autocommit else {}


def _connect(statement: int, by_ids: bool, planned_once: bool = False) -> dict[str, Any]:
    once = by_ids or planned_once
    return {
        "connect_timeout": 5,
        "target_session_attrs": "primary",  # a standby's rows may be old
        "prepare_threshold": 0 if once else 3,
        # No statement here is worth a second core, nor machine code: the cost of a forced plan says nothing.
        "options": "-c max_parallel_workers_per_gather=0 -c jit=off"
        f" -c statement_timeout={statement * 1000} -c lock_timeout=5000"
        " -c idle_in_transaction_session_timeout=15000 -c TimeZone=UTC"
        + (_PLANNED_ONCE if once else "")
        + (_NO_LOOPS if by_ids else ""),
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10000,
    }


def _dialect(url: str) -> str:
    return "postgresql+psycopg://" + url.split("://", 1)[1]


def span(ids: Sequence[UUID] | Sequence[str]) -> dict[str, object]:
    """The parameters of `id = ANY(:ids) AND id BETWEEN :low AND :high`, of ids or of their hexadecimal digits."""
    low, high = ends(ids)
    return {"ids": array("uuid", ids), "low": low, "high": high}


def ends(ids: Sequence[UUID] | Sequence[str]) -> tuple[UUID | str, UUID | str]:
    """The smallest id and the largest. UUIDs compare in Python, their numbers in C: three times as fast."""
    key: Any = _NUMBER if isinstance(ids[0], UUID) else None
    return min(ids, key=key), max(ids, key=key)


_NUMBER = attrgetter("int")
