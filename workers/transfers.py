"""Transfers: the blobs of a batch are read and written several at once, for each is a round trip to their store."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

#: Transfers of one batch at once. Each may hold a part of a file, 8 MiB of it.
AT_ONCE = 8


def each(verb: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
    """What `verb` gives for each item, in order. Raises what the first that failed has raised, once all have ended: the
    same items may be given again then."""
    futures: list[Future[Out]] = []
    waiting: SimpleQueue[tuple[In, Future[Out]]] = SimpleQueue()
    for item in items:
        futures.append(Future())
        waiting.put((item, futures[-1]))

    def run() -> None:
        while True:
            try:
                item, future = waiting.get_nowait()
            except Empty:
                return
            try:
                future.set_result(verb(item))
            except BaseException as error:
                future.set_exception(error)

    # Daemons: a process that ends does not wait for a store that hangs.
    threads = [threading.Thread(target=run, name="transfer", daemon=True) for _ in futures[:AT_ONCE]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [future.result() for future in futures]
