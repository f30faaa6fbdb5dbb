"""The limit that a profile named, for each bench: what a figure cannot pass without another design."""

WALLS: dict[str, str] = {
    "submit": "one API process takes a whole core: 164 us a request, 96 of them its handler; py-spy: no line over 3 %",
    "status": "one API process takes a whole core: 105 us a read, 45 of them its handler; py-spy: no line over 3 %",
    "drain": "one worker's Python: 24 us a job on one core, of it record 43 %, claim 29 %, Celery's loop 18 % (py-spy);"
    " Postgres 18 us on the other",
    "single": "",
    "model": "two cores for two threads of torch and all else: predict takes 9.2 ms a batch, and the raw loop 6.9; the"
    " start of a claim 2.6 ms more (py-spy)",
    "real": "",
    "gpu": "",
    "latency": "",
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
