"""How anything about an artifact is refused."""


class Refused(ValueError):
    """What may not be in an artifact, or is not what it was pushed as; the message says which file, and why."""
