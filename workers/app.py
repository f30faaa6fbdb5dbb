"""The Celery application of a worker: its broker, its queues, and the task whose messages go to the intake; how it
runs, and hears that it shall stop."""

import logging
import os
import signal
import socket
import warnings
from collections.abc import Callable

import redis
from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import worker_shutting_down
from celery.worker import state
from kombu.transport.redis import Channel, Transport
from kombu.utils.scheduling import round_robin_cycle

from tundish import queue
from workers.consume import declared, queues
from workers.intake import Intake, strategy

log = logging.getLogger(__name__)

#: Seconds that Redis is asked for messages at a time. A worker that stops waits for the answer; a blackholed connection
#: heals after it and twice the health check's interval: 9 s, under 15.
BRPOP_TIMEOUT = 1
HEALTH_CHECK = 4
#: Seconds for each other command: without it the loop hung in the PUBLISH of Celery's own heart-beat for good.
SOCKET_TIMEOUT = 4
#: Messages that Celery holds unacknowledged: one tells that there is work, and the intake fetches the rest in bulk.
PREFETCH = 1
#: Seconds between two heart-beats of Celery's own, for who watches its events; at Celery's 2 s they took a third of the
#: thread that fetches.
EVENTS = 10.0


class ByPriority(round_robin_cycle):  # type: ignore[type-arg]  # generic in its stubs alone
    """The order in which Redis is asked: all high queues, then normal, then low; in turn within a priority. What is not
    `heard` is not asked for now."""

    def __init__(self, heard: Callable[[str], bool]) -> None:
        super().__init__()
        self._heard = heard

    def consume(self, n: int) -> list[str]:  # type: ignore[override]  # its stubs name an iterator; a list is asked for
        return sorted(filter(self._heard, super().consume(n)), key=_priority)


class Lists(Channel):
    """kombu's queues, for who takes from them."""

    # What is not acknowledged lies in the intake, which outlives its channels and puts it back in its place.
    do_restore = False
    _told = False

    def _queue_bind(self, *binding: str) -> None:
        """Note where messages to an exchange go: nobody sends any, but to control workers. A Redis without memory takes
        no note, and gets memory as messages are taken."""
        try:
            super()._queue_bind(*binding)  # type: ignore[misc]  # which its stubs leave out
        except redis.OutOfMemoryError:
            if not self._told:
                log.warning("Redis has no memory left: until it has, `celery inspect` may not find this worker")
            self._told = True


class Order:
    """Makes the order that kombu asks for. It is among the options that `celery inspect stats` and Flower show, so it
    must have a JSON."""

    def __init__(self, heard: Callable[[str], bool]) -> None:
        self._heard = heard

    def __call__(self) -> ByPriority:
        return ByPriority(self._heard)

    def __json__(self) -> str:
        return "by priority"


def _priority(name: str) -> int:
    source = queue.Queue.parse(name)
    return -1 if source is None else source.priority


def broker_url(redis_url: str) -> str:
    """kombu's spelling of a Redis URL: a socket has a scheme of its own there, and its database another name."""
    if not redis_url.startswith("unix://"):
        return redis_url
    return redis_url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=")


def make(redis_url: str, intake: Intake, brpop_timeout: float = BRPOP_TIMEOUT) -> Celery:
    """The application that consumes what the intake's consumers follow."""
    Transport.Channel = Lists
    app = Celery("tundish", broker=broker_url(redis_url), set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue="tundish",
        task_queues=[declared(each.name) for each in queues(intake.consumers.targets)],
        task_create_missing_queues=True,
        worker_prefetch_multiplier=PREFETCH,
        worker_concurrency=1,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        # A Redis that refuses commands for a while, as a replica does or one whose disk is full, ends no worker.
        broker_channel_error_retry=True,
        # Celery itself runs none; without this it warns, whenever Redis went away, of what it would do with them.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_transport_options={
            # Postgres guards instead: the emulation costs three round trips a message and makes duplicates.
            "ack_emulation": False,
            "priority_steps": [0],
            "queue_order_strategy": Order(intake.hears),
            "polling_interval": brpop_timeout,  # kombu's name for it
            "health_check_interval": HEALTH_CHECK,
            "socket_timeout": SOCKET_TIMEOUT,
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
        },
    )
    task = app.task(name=queue.TASK)(_never)
    task.Strategy = strategy(intake)  # type: ignore[assignment]  # Celery takes a callable too
    return app


def heed(close: Callable[..., None]) -> None:
    """From here on SIGTERM and SIGINT end the worker in good order: `close` is called, so that no batch is claimed any
    more. Before Celery has started its own handlers are not there yet, and it must be told at once to stop."""

    def early(*_: object) -> None:
        close()
        state.should_stop = 0  # type: ignore[assignment]  # its types know None alone

    signal.signal(signal.SIGTERM, early)
    signal.signal(signal.SIGINT, early)
    worker_shutting_down.connect(close, weak=False)
    os.register_at_fork(after_in_child=_unheed)


def _unheed() -> None:
    """What a model forks off is no worker: a pool of processes that it closes is told to end by SIGTERM, and waited
    for."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run(app: Celery, name: str) -> bool:
    """Let Celery feed the intake until it is told to stop; False where it broke."""
    # It warns of pickle under root; JSON alone is accepted here.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = app.Worker(
        hostname=f"{name}@{socket.gethostname()}",
        pool="solo",
        without_gossip=True,
        without_mingle=True,
        task_events=True,
        heartbeat_interval=EVENTS,
        loglevel=None,
        quiet=True,
    )
    worker.start()
    return not worker.exitcode


def _never(ids: list[str], alone: bool) -> None:
    raise RuntimeError("the intake takes the messages of this task; it is never run")
