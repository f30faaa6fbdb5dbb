"""`python -m tests.chaos.fuse MODULE`: a process of the system that dies at a write boundary, once it is told to.

To tell it, put a file named after the boundary into the folder CHAOS_FUSES: the first process that comes to it takes
the file away and dies by SIGKILL. A boundary is `role:verb.moment`; the verbs are those of the store that write, and
what is done to Redis and to the blobs. There is no moment after a verb that says that it found nothing: [] or 0.

A worker is deaf while a file named `deaf-PID` is there: it takes itself for a consumer and asks Redis for nothing.
"""

import functools
import os
import runpy
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

#: What each role writes.
VERBS = {
    "api": ("submit", "submit_once", "amend_answer", "replace_answer", "cancel", "deliver", "new_batch_once"),
    "workers": ("register", "see_worker", "renew", "claim", "start", "overdue", "record", "deliver", "release"),
    "workers.chores": (
        *("reap", "unsent", "expire", "survey", "bury"),
        *("take_batch", "begin_batch", "add_lines", "end_batch"),
    ),
    "workers.courier": ("take", "settle", "disable_endpoints"),
}
#: Calls of other libraries, each before and after.
CALLS = {
    "api": ("push", "put"),
    "workers": ("pop", "put", "notify"),
    "workers.chores": ("push", "put_file"),
    "workers.courier": ("send",),
}
BOUNDARIES = [
    f"{role}:{verb}.{moment}" for role in VERBS for verb in VERBS[role] for moment in ("before", "after", "committed")
] + [f"{role}:{call}.{moment}" for role in CALLS for call in CALLS[role] for moment in ("before", "after")]


def main(module: str) -> None:
    fuses = Path(os.environ["CHAOS_FUSES"])

    def at(boundary: str) -> None:
        with suppress(FileNotFoundError):
            (fuses / f"{module}:{boundary}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    _guard_store(VERBS[module], at)
    _guard_calls(at)
    _deafen(fuses / f"deaf-{os.getpid()}")
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _guard_store(verbs: tuple[str, ...], at: Callable[[str], None]) -> None:
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    from tundish import store

    def guarded(name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(verb)
        def call(connection: Any, *args: Any, **kwargs: Any) -> Any:
            at(f"{name}.before")
            result = verb(connection, *args, **kwargs)
            if name == "register" or result is None or result:
                connection.info.setdefault("wrote", set()).add(name)
                at(f"{name}.after")
                if connection.connection.driver_connection.autocommit:  # it may be kept, and never given back
                    returned(None, connection)
            return result

        return call

    def returned(_: Any, record: Any) -> None:
        for name in record.info.pop("wrote", ()):
            at(f"{name}.committed")

    for name in verbs:
        setattr(store, name, guarded(name, getattr(store, name)))
    event.listen(Pool, "checkin", returned)


def _guard_calls(at: Callable[[str], None]) -> None:
    import redis
    import redis.client

    from api.sender import Sender
    from tundish.blobs import Directory
    from workers.post import Post

    def guard(owner: Any, method: str, name: str) -> None:
        original = getattr(owner, method)

        @functools.wraps(original)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            at(f"{name}.before")
            result = original(self, *args, **kwargs)
            at(f"{name}.after")
            return result

        setattr(owner, method, call)

    def guard_async(owner: Any, method: str, name: str) -> None:
        original = getattr(owner, method)

        @functools.wraps(original)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            at(f"{name}.before")
            result = await original(self, *args, **kwargs)
            at(f"{name}.after")
            return result

        setattr(owner, method, call)

    guard(Directory, "put", "put")
    guard(Directory, "put_file", "put_file")
    guard(redis.client.Pipeline, "execute", "push")
    guard(redis.Redis, "lmpop", "pop")
    guard(redis.Redis, "publish", "notify")
    guard_async(Sender, "_push", "push")
    guard_async(Post, "send", "send")


def _deafen(deaf: Path) -> None:
    from kombu.transport.redis import Channel

    ask = getattr(Channel, name := "_brpop_start")

    def asks(self: Any, *args: Any, **kwargs: Any) -> Any:
        return None if deaf.exists() else ask(self, *args, **kwargs)

    setattr(Channel, name, asks)


if __name__ == "__main__":
    main(sys.argv[1])
