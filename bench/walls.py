"""The limit that a profile named, for each bench: what a figure cannot pass without another design."""

WALLS: dict[str, str] = {
    "submit": "one API process takes a whole core, and Postgres a sixth of one (CPU time)",
    "status": "one API process takes a whole core: write 25 %, parse 17, rows 13, job's JSON 12 of it (py-spy)",
    "drain": "two full cores: half of a job's CPU is the workers' Python, half is Postgres (costs)",
    "single": "one worker: 13 us of its Python a job, 77 % of a core and one interpreter; Postgres 10 (CPU time)",
    "model": "two full cores: of 11.3 ms of CPU a batch predict's thread has 7.6, others 1.8, Postgres 1.8 (schedstat)",
    "real": "the raw loop's two threads beside all else on two cores: two workers of a thread each do 6 % more",
    "gpu": "",
    "latency": "of 3.2 ms three commits take 1.6, half of it fsync; API 0.6, Redis and Celery 0.4, worker 0.5 (stamps)",
    "wake": "half take 6 ms; no core is full, the API takes a sixth of one (CPU time): the tail is the machine's",
    "backlog": "Postgres takes 9.7 us of CPU a job of 100,000 queued, 10.9 of a million: an index level more (buffers)",
    "memory": "",
    "collate": "",
    "payload": "",
    "scale": "a batch of 50 ms comes 51.3 ms after the last alone, 52.1 beside 15 others on two cores (rates)",
    "streams": "",
    "swap": "predict takes 1.5 s of 2.3, two or three loads 0.5; of LRU's 3.3 the same 1.5, eight loads 1.5 (stamps)",
    "webhooks": "one courier takes a whole core (CPU time)",
    "batches": "chores take 44 % of a line's CPU and Postgres 40, one behind the other (CPU time)",
}
