"""Upcoming: what the thread that predicts does next: the batch that is prepared, and before it what others asked."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, Full, Queue, SimpleQueue

from tundish.execute import DeviceLost
from workers.prepare import Prepared


class Ended(Exception):
    """Nobody predicts any more: what was asked is not done."""


class Upcoming:
    """Between the threads that prepare and the one that predicts: one batch waits, and who puts a second waits too.
    `wanted` is called, in the thread that predicts, where there is room for one after something else was done."""

    def __init__(self, wanted: Callable[[], None]) -> None:
        self._wanted = wanted
        self._prepared: Queue[Prepared | None] = Queue(1)  # None wakes who waits for a batch
        self._asked: SimpleQueue[_Asked] = SimpleQueue()
        self._ended = False
        self._left = False
        #: The device waits for a batch, and for nothing else.
        self.hungry = False

    @property
    def empty(self) -> bool:
        """No batch waits."""
        return self._prepared.empty()

    def put(self, prepared: Prepared) -> None:
        """It is ready."""
        self._prepared.put(prepared)

    def end(self) -> None:
        """No more come."""
        self._ended = True
        self._wake()

    def soon(self, verb: Callable[[], None]) -> Future[None]:
        """Let `verb` be called between two batches, in the thread that predicts. Ended comes of it where that left."""
        asked = _Asked(verb)
        self._asked.put(asked)
        self._wake()
        if self._left:
            self._refuse()
        return asked.done

    def take(self) -> Prepared | None:
        """The next batch, after all that was to be done before it; None where no more come. Raises DeviceLost."""
        while True:
            while not self._asked.empty():
                self._asked.get().call()
            if self._ended and self._prepared.empty():
                return None
            self.hungry = True
            prepared = self._prepared.get()
            self.hungry = False
            if prepared is not None:
                return prepared
            self._wanted()

    def leave(self) -> None:
        """Nothing is taken any more, by the thread that predicted."""
        self._left = True
        self._refuse()

    def withdraw(self) -> list[Prepared]:
        """What waits, from any thread: it is not taken any more."""
        waiting: list[Prepared | None] = []
        with suppress(Empty):
            while True:
                waiting.append(self._prepared.get_nowait())
        if self._ended or not self._asked.empty():  # who takes may have begun to wait meanwhile
            self._wake()
        return [each for each in waiting if each]

    def _refuse(self) -> None:
        with suppress(Empty):
            while True:
                self._asked.get_nowait().done.set_exception(Ended("this worker predicts no more"))

    def _wake(self) -> None:
        """Who waits for a batch looks for what was asked, and whether any more come."""
        with suppress(Full):  # of a batch, which does that too
            self._prepared.put_nowait(None)


class _Asked:
    """A verb, and what comes of it: `done`."""

    def __init__(self, verb: Callable[[], None]) -> None:
        self._verb = verb
        self.done: Future[None] = Future()

    def call(self) -> None:
        """Raises DeviceLost; what else it raises is for who asked."""
        try:
            self._verb()
        except BaseException as error:
            self.done.set_exception(error)
            if isinstance(error, DeviceLost):
                raise
        else:
            self.done.set_result(None)
