"""The Redis client of worker and chores: no call may hang on a server that went away."""

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry


def redis_client(url: str, patience: float = 5) -> redis.Redis:
    """A client whose calls fail after `patience` seconds, and that tries a broken connection again twice; so one whose
    server has become a replica: the next may lead to the server that took its place."""
    return redis.Redis.from_url(
        url,
        socket_timeout=patience,
        socket_connect_timeout=patience,
        health_check_interval=15,
        retry=Retry(ExponentialBackoff(cap=1, base=0.05), 2),
        retry_on_error=[redis.ReadOnlyError],
    )
