"""The limit that a profile named, for each bench: what a figure cannot pass without another design."""

WALLS: dict[str, str] = {
    "submit": "one API process takes a whole core, 74 us a request; Postgres 10 (costs); py-spy: 55 % of it handler",
    "status": "one API process takes a whole core, 59 us a read; Postgres 6 (costs)",
    "drain": "two full cores: a job takes 15 us of the workers' Python and 12 of Postgres (CPU time by process)",
    "single": "",
    "model": "two full cores: of 13.6 ms of CPU a batch the network takes 6.4, worker 4.1, Postgres 2.5 (schedstat)",
    "real": "the raw loop's two threads beside all else on two cores: two workers of a thread each do 6 % more",
    "gpu": "",
    "latency": "of 3.4 ms: the submit's commit 0.9, claim 0.6, record 0.6, start 0.3, Redis 0.4 (stamps at each stage)",
    "wake": "",
    "backlog": "",
    "memory": "",
    "payload": "",
    "scale": "",
    "streams": "",
    "swap": "",
    "webhooks": "",
    "batches": "",
}
