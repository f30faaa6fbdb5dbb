"""Transfers: the blobs of a batch are read and written several at once, for each is a round trip to their store."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

#: Transfers of one batch at once.
AT_ONCE = 8
#: Bytes over which they go one by one: there the trip is nothing, and the allocator keeps what each thread once held.
LARGE = 1 << 20


def each(verb: Callable[[In], Out], items: Iterable[In], size: Callable[[In], int]) -> list[Out]:
    """What `verb` gives for each item, of so many bytes, in order. Raises what the first that failed has raised, once
    all have ended: the same items may be given again then."""
    futures: list[Future[Out]] = []
    small: SimpleQueue[tuple[In, Future[Out]]] = SimpleQueue()
    large: SimpleQueue[tuple[In, Future[Out]]] = SimpleQueue()
    for item in items:
        futures.append(Future())
        (large if size(item) > LARGE else small).put((item, futures[-1]))

    def run(waiting: SimpleQueue[tuple[In, Future[Out]]]) -> None:
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
    count = min(AT_ONCE, small.qsize())
    threads = [threading.Thread(target=run, args=(small,), name="transfer", daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    run(large)
    for thread in threads:
        thread.join()
    return [future.result() for future in futures]
