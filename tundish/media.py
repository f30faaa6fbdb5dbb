"""Media types: what a payload's bytes are (RFC 9110, 8.3)."""

JSON = "application/json"
OCTETS = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
NPY = "application/x-npy"
SAFETENSORS = "application/vnd.safetensors"


def essence(content_type: str) -> str:
    """A media type without its parameters, in small letters."""
    return content_type.partition(";")[0].strip().lower()
