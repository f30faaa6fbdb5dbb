"""celery-batches: a task takes many jobs at once, and stores each one's result. Runs in its own environment."""

import os
import sys

from celery import Celery
from celery_batches import Batches, SimpleRequest

SOCKET = os.environ.get("BENCH_SOCKET", "")

app = Celery(
    "batches", broker=f"redis+socket://{SOCKET}?virtual_host=0", backend=f"redis+socket://{SOCKET}?virtual_host=1"
)
# Its page asks for a prefetch that is above `flush_every`: 0 is without bound.
app.conf.update(
    worker_prefetch_multiplier=0,
    task_acks_late=False,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    result_expires=3600,
)


@app.task(name="noop", base=Batches, flush_every=256, flush_interval=1)
def noop(requests: list[SimpleRequest]) -> None:
    for request in requests:
        app.backend.mark_as_done(request.id, request.args[0], request=request)


if __name__ == "__main__":
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(int(sys.argv[1])):
            noop.apply_async((number,), producer=producer)
