"""Stock Celery: one task a job, results kept in Redis. Runs in its own environment."""

import json
import os
import sys
import time

from celery import Celery

SOCKET = os.environ.get("BENCH_SOCKET", "")

app = Celery(
    "stock", broker=f"redis+socket://{SOCKET}?virtual_host=0", backend=f"redis+socket://{SOCKET}?virtual_host=1"
)
# What Celery's page on optimizing names for short tasks: many messages at once, acknowledged early, no events, no
# limits of rate.
app.conf.update(
    worker_prefetch_multiplier=64,
    task_acks_late=False,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    result_expires=3600,
)

#: Seconds from publishing to running.
took: list[float] = []


@app.task(name="noop")
def noop(number: int) -> int:
    return number


@app.task(name="stamp", ignore_result=True)
def stamp(sent: float) -> None:
    took.append(time.time() - sent)


@app.task(name="tell")
def tell() -> list[float]:
    return took


def load(count: int) -> None:
    """Queue `count` jobs."""
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            noop.apply_async((number,), producer=producer)


def pace(count: int, rate: float) -> None:
    """Publish `count` jobs, `rate` a second; print the seconds from each one's publishing to its run."""
    began = time.monotonic()
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            stamp.apply_async((time.time(),), producer=producer, ignore_result=True)
    print(json.dumps(tell.delay().get(timeout=30)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["load", count]:
            load(int(count))
        case ["pace", count, rate]:
            pace(int(count), float(rate))
