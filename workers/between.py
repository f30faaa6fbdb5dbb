"""Between: what is to be done between two batches, by the thread that predicts."""

from collections.abc import Callable
from concurrent.futures import Future

from tundish.execute import DeviceLost


class Between:
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
