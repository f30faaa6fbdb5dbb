"""Ray Serve's task consumer over Celery's adapter, results kept in Redis. Runs in its own environment."""

import os
import sys
import tempfile
import threading

import ray
from ray import serve
from ray.serve.schema import CeleryAdapterConfig, TaskProcessorConfig
from ray.serve.task_consumer import instantiate_adapter_from_config, task_consumer, task_handler

SOCKET = os.environ.get("BENCH_SOCKET", "")

config = TaskProcessorConfig(
    queue_name="noop",
    adapter_config=CeleryAdapterConfig(
        broker_url=f"redis+socket://{SOCKET}?virtual_host=0",
        backend_url=f"redis+socket://{SOCKET}?virtual_host=1",
        app_custom_config={
            "worker_prefetch_multiplier": 64,
            "worker_disable_rate_limits": True,
            "worker_send_task_events": False,
            "result_expires": 3600,
        },
    ),
)


@task_consumer(task_processor_config=config)
class Consumer:
    @task_handler(name="noop")
    def noop(self, number: int) -> int:
        return number


def load(count: int) -> None:
    """Queue `count` jobs, by one producer, as Celery's adapter does not do by itself."""
    app = instantiate_adapter_from_config(config)._app
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            app.send_task("noop", args=(number,), queue=config.queue_name, producer=producer)


def consume() -> None:
    """Until the standard input ends."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        ray.init(include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        serve.start(proxy_location="Disabled")
        # A replica a core measured best: one gave four fifths of two.
        deployment = serve.deployment(Consumer, num_replicas=os.cpu_count(), max_ongoing_requests=2)
        serve.run(deployment.bind(), name="noop", route_prefix=None)
        over = threading.Thread(target=sys.stdin.read)
        over.start()
        over.join()
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["load", count]:
            load(int(count))
        case ["consume"]:
            consume()
