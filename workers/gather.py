"""Gather: what was predicted, in the groups that are recorded together."""

import threading
import time
from queue import Empty, Queue

from workers.batch import AHEAD, ROWS
from workers.predict import Prediction

#: Seconds that what was claimed together may take until it is recorded together.
TOGETHER = 2 * AHEAD


class Gather:
    """Between the thread that predicts and those that record: it takes four predictions, and who puts waits then."""

    def __init__(self) -> None:
        self._predicted: Queue[Prediction | None] = Queue(4)
        self._gathering = threading.Lock()

    def put(self, prediction: Prediction) -> None:
        """It is ready."""
        self._predicted.put(prediction)

    def end(self) -> None:
        """Predict has ended."""
        self._predicted.put(None)

    def take(self) -> list[Prediction]:
        """What is ready, at least one prediction and up to about ROWS results; after one whose claim has more behind
        it, those are waited for, if they do not take long. Empty once predict has ended and all was taken."""
        gathered: list[Prediction] = []
        with self._gathering:
            prediction = self._predicted.get()
            until = time.monotonic() + TOGETHER
            while prediction:
                gathered.append(prediction)
                left = until - time.monotonic()
                if sum(len(each.results) for each in gathered) >= ROWS:
                    return gathered
                try:
                    prediction = self._predicted.get(prediction.claim.more and left > 0, max(0.0, left))
                except Empty:
                    return gathered
            self._predicted.put(None)
            return gathered
