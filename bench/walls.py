"""The limit that a profile named, for each bench: what a figure cannot pass without another design."""

WALLS: dict[str, str] = {
    "submit": "",
    "status": "",
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
