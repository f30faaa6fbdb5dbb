"""Clear: what lies under a prefix of blobs is deleted, for the chores whose rows go with it."""

import logging

from tundish import logs
from tundish.blobs import BlobError
from workers.chores import Tools

log = logging.getLogger(__name__)
_outage = logs.Outage(log)


def clear(tools: Tools, prefix: str) -> bool:
    """Whether nothing lies under a prefix any more. What cannot be deleted is told, keeps nothing else from being
    deleted, and is found again by the chore's next run; so is all that is left once the chores are stopped. Raises
    BlobUnavailable where it is not this prefix that is in the way, but the store that cannot be used."""
    if tools.stopped.is_set():
        return False
    what = f"the deletion of the blobs under {prefix}"
    try:
        tools.blobs.delete_prefix(prefix)
    except BlobError as error:
        tools.blobs.check()
        _outage.waits(what, error)
        return False
    _outage.over(what)
    return True
