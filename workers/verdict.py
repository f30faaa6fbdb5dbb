"""What becomes of a webhook after a try, by Standard Webhooks 1.0.0. Pure: time and chance are passed in."""

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

#: Seconds before the second and each later try; after the last the delivery is dead.
DELAYS = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
#: A delay is longer by up to this part of it, so that what failed together does not come back together.
JITTER = 0.2
#: Seconds that a Retry-After may put a delivery off at most, and the whole endpoint.
LONGEST, LONGEST_PAUSE = 86400.0, 300.0
#: Answers of a receiver that has too much to do.
THROTTLES = frozenset({429, 502, 504})
GONE = 410


class Answer(NamedTuple):
    """What came of a try: the answer's status, or why there was none. `retry_after` is the header as it came; after one
    that is `final` no other try is made."""

    status_code: int | None
    error: str | None = None
    retry_after: str | None = None
    final: bool = False

    @property
    def good(self) -> bool:
        """2xx alone is success, and the answer must have ended in time."""
        return self.error is None and self.status_code is not None and 200 <= self.status_code < 300

    @property
    def throttles(self) -> bool:
        return self.status_code in THROTTLES


class Verdict(NamedTuple):
    """The delivery's status, the seconds until its next try, and whether its endpoint is to be disabled."""

    status: str
    again_in: float | None = None
    disable: bool = False


def verdict(tries: int, answer: Answer, *, now: float, chance: float) -> Verdict:
    """After the try that followed `tries` others. `now` is in seconds since 1970, `chance` in [0, 1)."""
    if answer.good:
        return Verdict("delivered")
    if answer.status_code == GONE:
        return Verdict("dead", disable=True)
    if answer.final or tries >= len(DELAYS):
        return Verdict("dead")
    delay = DELAYS[tries] * (1 + JITTER * chance)
    return Verdict("pending", max(delay, min(retry_after(answer, now), LONGEST)))


def pause(answer: Answer, now: float) -> float:
    """Seconds for which the receiver asked to be left alone, all its deliveries; 0 where it did not."""
    return min(retry_after(answer, now), LONGEST_PAUSE)


def retry_after(answer: Answer, now: float) -> float:
    """The header's seconds (RFC 9110, 10.2.3: a number or a date), 0 where there is none that can be read."""
    given = (answer.retry_after or "").strip()
    if answer.good or not given.isascii():
        return 0.0
    if given.isdigit():
        return float(given[:12])
    try:
        at = parsedate_to_datetime(given)
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, IndexError, OverflowError):
        return 0.0
