"""The pipeline of one worker: claim, supply, prepare, predict, record, notify.

Threads let the claim and decoding of batch k+1, the predict of k, and the encoding and record of k-1 overlap: the
device waits for no database, but before a batch that takes long, to hear which of its jobs were cancelled. Recording
has two, so that one gathers while the other waits for the disk (13 % of the no-op drain). The queues between the stages
are short: they, and what is claimed at once, bound what a worker holds.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ParamSpec
from uuid import UUID

import redis

from tundish import logs, store
from tundish.blobs import Blobs
from tundish.execute import DeviceLost
from tundish.model import collates
from tundish.settings import Settings
from workers.ahead import Ahead
from workers.batch import AHEAD, Draft
from workers.claim import Claim, Custody
from workers.elsewhere import Elsewhere
from workers.events import Events
from workers.folders import Folders
from workers.gather import Gather
from workers.gpu import Device, host_memory
from workers.inputs import Fetcher
from workers.intake import Intake
from workers.lead import SLOW, Lead, wanted
from workers.notify import Notifier
from workers.pace import Pace
from workers.patience import Patience
from workers.persist import Persist
from workers.predict import Prediction, predict, unloaded
from workers.prepare import Prepared, prepare
from workers.record import finish, record
from workers.shelf import LoadFailed, Shelf
from workers.supply import Supply
from workers.upcoming import Upcoming
from workers.watch import Watch

P = ParamSpec("P")

log = logging.getLogger(__name__)

#: Seconds for what has run to be recorded, after a stage broke.
BROKEN = 5.0
#: What may have to wait, as the log says it.
OVERDUE = "saying that a claim is over its time-out"
#: Seconds after an error of the device in which its driver tells that it is gone.
TOLD = 1.0
#: Of the machine's memory, what the inputs that are no rows may take in one worker until they are predicted.
INPUTS_SHARE = 0.125


@dataclass(frozen=True)
class Tools:
    """What the stages of one worker work with."""

    worker: UUID
    settings: Settings
    engine: store.Engine
    by_ids: store.Engine  # for what takes arrays of ids
    kept: store.Kept  # the same where it is one statement: for what every batch takes
    client: redis.Redis
    notify: Notifier
    events: Events
    blobs: Blobs
    shelf: Shelf
    device: Device
    elsewhere: Elsewhere
    pace: Pace


class Pipeline:
    """One worker's stages. `on_failure` is called, in the stage's thread, where one of them breaks."""

    def __init__(self, tools: Tools, intake: Intake, on_failure: Callable[[], None]) -> None:
        self._tools = tools
        self._intake = intake
        self._on_failure = on_failure
        self._upcoming = Upcoming(intake.ring)
        tools.shelf.soon = self._upcoming.soon
        self._custody = Custody(tools.worker, tools.settings, tools.engine, tools.kept, tools.client)
        self._predicted = Gather()
        self._running: Claim | None = None
        self._lead = Lead()
        self._watch = Watch(self._give_back, self._overdue)
        self._ahead = Ahead(tools.device.name, self._watch.beside)
        self._closing = threading.Event()  # no claim from now on
        self._over = threading.Event()  # and no other try either
        self._outage = logs.Outage(log)
        self._persist = Persist(self._closing, self._outage)
        self._supply = Supply(
            Fetcher(tools.settings.outbound_allow, tools.settings.max_body, int(INPUTS_SHARE * host_memory())),
            self._custody,
            intake,
            self._persist,
            self._closing,
            folders=self._folders,
            prepare=self._prepare,
            beside=lambda verb, claimed: self._thread(verb, claimed).start(),
        )
        self._recorded = threading.Condition()
        self._planning = threading.Lock()
        #: The models are on the shelf.
        self.filled = threading.Event()
        self.jobs = 0
        self.broken = False
        #: Its device is gone: what it still gives may be garbage, and no job is to blame.
        self.lost = False
        self._threads = [self._thread(stage) for stage in (self._claim, self._predict, self._record, self._record)]

    # A job's way through a worker.

    def _claim(self) -> None:
        tools = self._tools
        while drafts := self._intake.take(self.idle, self._ready):
            claims = self._persist("claiming a batch", self._take, drafts) or []
            if not claims:
                tools.shelf.dropped(drafts[0].target)
            until = time.monotonic() + SLOW
            for place, claimed in enumerate(claims):
                became_slow = time.monotonic() > until or self._pending() >= SLOW
                if place and (became_slow or self._closing.is_set()):
                    self._custody.give_back([each.id for each in claims[place:]])
                    break
                if not self._supply.now(claimed):
                    tools.shelf.dropped(claimed.target)  # others need not wait for what is fetched
                    self._supply.later(claimed)
        self._upcoming.end()

    def _take(self, drafts: Sequence[Draft]) -> list[Claim]:
        # What is being fetched may come in between.
        follows = self._upcoming.hungry and self._upcoming.empty and not self._supply.waits
        return self._custody.take(drafts, begin=self._tools.shelf.complete and follows)

    def _folders(self, claimed: Claim) -> Folders | None:
        """Where its inputs go as files; None where they are read into memory."""
        loaded = self._tools.shelf.stock.models.get(claimed.target)
        return loaded.folders if loaded and loaded.reads.in_files else None

    def _prepare(self, claimed: Claim) -> None:
        if prepared := self._decoded(claimed):
            self._lead.next_up = claimed.target
            with self._planning:  # one at a time: what is collated for it takes memory of the device
                self._upcoming.put(self._with_plan(prepared))

    def _with_plan(self, prepared: Prepared) -> Prepared:
        """What its model collates is made meanwhile, where that is on the device and no job must be alone."""
        loaded = prepared.loaded
        there = self._tools.shelf.stock.holds(prepared.claim.target)
        if there and collates(loaded.model) and not self._custody.lone:
            ahead = self._ahead.plan(loaded, prepared.items, prepared.inputs)
            return replace(prepared, ahead=ahead)
        return prepared

    def _decoded(self, claimed: Claim) -> Prepared | None:
        """None where its model is no longer served, or no longer reads files: it is given back then."""
        tools = self._tools
        loaded = tools.shelf.stock.models.get(claimed.target)
        if loaded and (loaded.reads.in_files or not claimed.folder):
            settings = tools.settings
            return self._persist(
                "reading the inputs of a batch",
                prepare,
                loaded,
                claimed,
                tools.blobs,
                Patience(),
                timeout=settings.timeout,
                max_body=settings.max_body,
            )
        self._custody.give_back([claimed.id])
        return None

    def _predict(self) -> None:
        try:
            self._predict_all()
        finally:
            self._upcoming.leave()
            self._predicted.end()

    def _predict_all(self) -> None:
        self._tools.shelf.fill()
        self.filled.set()
        while prepared := self._upcoming.take():
            if self._closing.is_set():
                continue
            claimed = self._running = prepared.claim
            if self._pending() >= AHEAD:
                self._intake.ring()  # there is room for one more
            with self._watch.batch(claimed.target):
                prediction = self._run(prepared)
            self._running = None
            if claimed.hold:
                claimed.hold.give()
                prediction = prediction and replace(prediction, claim=claimed.without_bodies())
            if prediction and prediction.ran:
                took = prediction.predict_ms / 1000
                self._lead.took(claimed.target, took)
                self._intake.ran(claimed.target, max(took, prepared.seconds))
            else:
                self._intake.ring()
            if self.lost:
                return
            if prediction:
                self._predicted.put(prediction)
                if self._custody.last(claimed.jobs):
                    self._wait_for_record(claimed.id)
            elif not self._closing.is_set():
                self._custody.let_go([claimed.id])
            del prepared, claimed, prediction  # they are large, and the next one may be long in coming

    def _run(self, prepared: Prepared) -> Prediction | None:
        """None where the claim is no longer ours: it was lost, or given back."""
        tools, claimed, settings = self._tools, prepared.claim, self._tools.settings
        if prepared.loaded is not tools.shelf.stock.models.get(claimed.target):  # another took its place since
            again = self._decoded(claimed)
            if again is None:
                return None
            prepared = again
        began = time.monotonic()
        try:
            with tools.shelf.lend(claimed.target):
                tools.pace.brought(1000 * (time.monotonic() - began))
                return self._persist(
                    "starting a batch",
                    predict,
                    tools.by_ids,
                    tools.kept,
                    prepared,
                    self._watch,
                    tools.events,
                    tools.device.name,
                    quick=self._lead.quick(claimed.target),
                    lease=settings.lease,
                    public_url=settings.public_url,
                )
        except LoadFailed as failure:
            left = self._persist("asking what others serve", tools.elsewhere.look) if failure.final else None
            if left is not None and claimed.target not in left:
                return unloaded(prepared, str(failure))
            self._custody.give_back([claimed.id])
            return None

    def _record(self) -> None:
        tools, settings = self._tools, self._tools.settings
        persist = Persist(self._over, self._outage)  # what has run is recorded while there is time
        while predictions := self._predicted.take():
            tools.events.settle()
            recorded = None
            finished = persist("storing outputs", finish, predictions, tools.blobs, inline_max=settings.inline_max)
            if finished is not None:
                recorded = persist(
                    "recording what has run",
                    record,
                    tools.kept,
                    tools.by_ids,
                    predictions,
                    finished,
                    public_url=settings.public_url,
                )
            with self._recorded:
                if recorded:
                    self._custody.let_go(each.claim.id for each in predictions)
                    self.jobs += len(recorded.ids)
                self._recorded.notify_all()
            if recorded:
                tools.notify(recorded.ids, webhooks=recorded.webhooks)
                for each in predictions:
                    tools.pace.ended(time.monotonic(), len(each.results), each.predict_ms)

    # What the stages share.

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, grace: float) -> bool:
        """No claim from now on. The running batch has `grace` seconds to end and be recorded; what was fetched or
        claimed and not started goes back to its place in its queue, and no death is charged. Whether all stages have
        ended."""
        self._close()
        log.info("no claim from now on; the running batch may end")
        until = time.monotonic() + (min(BROKEN, grace) if self.broken or self.lost else grace)
        if fetched := self._intake.drain():
            self._custody.put_back(fetched)
        self._ahead.stop()
        for thread in (threads := [*self._threads, self._ahead.thread]):
            thread.join(max(0.0, until - time.monotonic()))
        self._over.set()
        # A stage that broke may have been broken by a job: its claims run out, and it is charged with a death.
        if self.lost or not self.broken:
            self._custody.end()
        return not any(thread.is_alive() for thread in threads)

    def lose(self) -> None:
        """The device is gone: nothing is claimed from now on, and what runs is not recorded but given back."""
        self.lost = True
        self._close()

    def between(self, verb: Callable[[], None]) -> None:
        """Let `verb` be called between two batches, in the thread that predicts, and wait for it. What it raises passes
        through. Raises Ended."""
        self._upcoming.soon(verb).result()

    def idle(self) -> bool:
        """The device has nothing to do and nothing is on its way to it."""
        return self._running is None and self._upcoming.empty

    def renewable(self) -> list[UUID]:
        """The claims whose lease the heart-beat renews: all, but that of a predict which is over its time-out."""
        overdue = self._running if self._watch.overdue else None
        return [claim for claim in self._custody.held if not overdue or claim != overdue.id]

    def _ready(self) -> bool:
        """A batch is wanted, and it is not the end."""
        if self._closing.is_set():
            return False
        return wanted(self._pending(), idle=self.idle(), waits=not self._upcoming.empty)

    def _pending(self) -> float:
        running = self._running
        return self._lead.pending(running.target if running else None, self._watch.running)

    def _close(self) -> None:
        self._closing.set()
        self._intake.close()
        with self._recorded:
            self._recorded.notify_all()

    def _wait_for_record(self, claim: UUID) -> None:
        """A job on its last attempt ran alone, and nothing may run before its end is recorded: a next batch that kills
        this process would take it along."""
        with self._recorded:
            self._recorded.wait_for(lambda: claim not in self._custody.held or self._closing.is_set())

    def _give_back(self) -> None:
        """The running batch takes long: what was claimed or fetched behind it goes to whoever is free. What waits for
        its turn on the device keeps its place here."""
        if self._tools.shelf.complete and (fetched := self._intake.drain()):
            self._custody.put_back(fetched)  # first, for what was claimed goes before it
        if given_back := [each.claim for each in self._upcoming.withdraw()]:
            self._custody.give_back([claim.id for claim in given_back])
            for claim in given_back:
                self._tools.shelf.dropped(claim.target)
            self._intake.ring()  # the batch may have ended meanwhile, and nothing is on its way any more

    def _overdue(self) -> None:
        claim = self._running
        try:
            if claim and self._watch.overdue:  # and not the next one already
                with store.autocommit(self._tools.engine).connect() as connection:
                    store.overdue(connection, claim.id)
        except store.StoreError as error:
            self._outage.waits(OVERDUE, error)
        else:
            self._outage.over(OVERDUE)

    def _thread(self, stage: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> threading.Thread:
        """A daemon, which has not started; what it raises stops the worker."""
        guarded = partial(self._guard, stage, *args, **kwargs)
        return threading.Thread(target=guarded, name=stage.__name__.strip("_"), daemon=True)

    def _guard(self, stage: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            stage(*args, **kwargs)
        except BaseException as error:
            # A poisoned context may be a job's fault; the loss of the device is not. What tells of it may come a little
            # later, and to the thread that guards the device.
            gone = isinstance(error, DeviceLost) and self._tools.device.fault(TOLD) is not None
            self.lost = self.lost or gone
            self.broken = not self.lost
            self._close()
            log.critical("the stage %s broke: this worker stops", stage.__name__.strip("_"), exc_info=True)
            self._on_failure()
