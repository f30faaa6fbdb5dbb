"""The limit that a profile named, for each bench: what a figure cannot pass without another design. In shares: seconds
would be those of the profile's machine and hour, beside figures of another."""

WALLS: dict[str, str] = {
    "submit": "one API process takes a whole core, and Postgres a sixth of one (CPU time)",
    "status": "one API process takes a whole core: write 25 %, parse 17, rows 13, job's JSON 12 of it (py-spy)",
    "drain": "two full cores: half of a job's CPU is the workers' Python, half is Postgres (costs)",
    "single": "one worker takes 77 % of a core, and has one interpreter; Postgres takes 59 % of one (CPU time)",
    "model": "two full cores: predict's thread has two thirds of them, the worker's others a sixth, Postgres a sixth",
    "real": "the raw loop's two threads have two cores to themselves; two workers of one each share them",
    "gpu": "",
    "latency": "three commits take half of it, half of that is fsync; API a fifth, worker a sixth, Redis an eighth",
    "wake": "half of it is the median; no core is full, the API has a sixth of one (CPU time): the rest is noise",
    "backlog": "Postgres takes 12 % more CPU a job of a million queued than of 100,000: an index level more (buffers)",
    "memory": "",
    "collate": "",
    "payload": "",
    "scale": "from one batch of 50 ms to the next 3 % are lost alone, 4 beside 15 others on two cores (rates)",
    "streams": "",
    "swap": "predict takes two thirds, two or three loads a fifth; of LRU's time each takes 45 %, by eight loads",
    "webhooks": "",
    "batches": "chores take 44 % of a line's CPU and Postgres 40, one behind the other (CPU time)",
}
