"""The limit that a profile named, for each bench: what a figure cannot pass without another design."""

WALLS: dict[str, str] = {
    "submit": "one API process takes a whole core: 310 us a request, of which its handler is 125",
    "status": "one API process takes a whole core: 226 us a request, of which its handler is 62",
    "drain": "",
    "single": "",
    "model": "",
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
