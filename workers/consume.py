"""Consume: which queues Celery asks Redis for, changed from any thread while it runs.

Celery's own `add_consumer` and `cancel_consumer` are used, so that `celery inspect active_queues` tells the truth, and
what an operator says by `celery control` holds: a queue that an operator took away does not come back by itself.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from kombu import Queue as KombuQueue

from tundish.job import Priority
from tundish.queue import Queue
from workers.batch import Target

log = logging.getLogger(__name__)


def queues(targets: Iterable[Target]) -> list[Queue]:
    """The queues that serve `targets`."""
    return [Queue(target.model, target.version, priority) for target in targets for priority in Priority]


def declared(name: str) -> KombuQueue:
    """A queue as Celery knows it."""
    return KombuQueue(name, exchange="", routing_key=name)


class Consumers:
    """The queues of a worker's targets. Celery's consumer is built again at every reconnect, and what was wanted in the
    meantime is made up for then."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self.targets = self._ever = frozenset(targets)
        self._lock = threading.Lock()
        self._wanted: dict[str, frozenset[Target]] = {}
        self._taken: set[str] = set()  # the queues that Celery does not consume, and not because of an operator
        self._consumer: Any = None

    def follow(self, wanted: Iterable[Target], why: str) -> None:
        """As far as `why` is concerned, consume the queues of `wanted` alone. A queue is consumed while nobody is
        against it. From any thread; it takes effect within the seconds that Redis is being waited on."""
        with self._lock:
            self._wanted[why] = frozenset(wanted)
        self.soon(self._apply)

    def serve(self, targets: Iterable[Target]) -> None:
        """Consume the queues of these targets from now on. Nobody is against those that are new."""
        with self._lock:
            before, self.targets = self.targets, frozenset(targets)
            added = self.targets - before
            self._ever |= added
            self._wanted = {why: wanted | added for why, wanted in self._wanted.items()}
            self._taken |= {queue.name for queue in queues(added)}
        self.soon(self._apply)

    def attach(self, consumer: Any) -> None:
        """Celery built this consumer; it does not consume yet."""
        self._consumer = consumer
        self._apply(running=False)

    def names(self) -> list[str]:
        """The queues that Celery consumes: those that are followed, less what operators told it to leave."""
        consuming = self._consumer.task_consumer if self._consumer else None
        return [each.name for each in consuming.queues] if consuming else []

    def soon(self, verb: Callable[[], None] = lambda: None) -> None:
        """Call `verb` in the thread of Celery's loop, which asks Redis again then: it may hear now what it did not.
        From any thread; nothing while Celery has no consumer, which begins by asking."""
        if self._consumer is not None and self._consumer.hub is not None:
            self._consumer.hub.call_soon(verb)

    def _apply(self, running: bool = True) -> None:
        """In the thread of Celery's loop; `running`: the consumer consumes already."""
        consumer, known = self._consumer, self._consumer.app.amqp.queues
        with self._lock:
            followed = self.targets.intersection(*self._wanted.values())
        wanted = {queue.name for queue in queues(followed)}
        ours = {queue.name for queue in queues(self._ever)}
        for name in sorted(ours.intersection(known.consume_from) - wanted):
            self._taken.add(name)
            if running:
                consumer.cancel_task_queue(name)
            else:
                known.deselect(name)
        for name in sorted(self._taken & wanted):
            self._taken.discard(name)
            if name not in known:
                known.add(declared(name))
            if running:
                consumer.add_task_queue(name)
            else:
                known.select_add(known[name])
