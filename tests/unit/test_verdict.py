"""What becomes of a webhook after a try."""

from email.utils import formatdate

import pytest

from workers.verdict import DELAYS, Answer, pause, verdict

NOW = 1_800_000_000.0
GOOD, BAD = Answer(204), Answer(500)


def after(tries: int, answer: Answer, chance: float = 0.0) -> tuple[str, float | None, bool]:
    return tuple(verdict(tries, answer, now=NOW, chance=chance))  # type: ignore[return-value]  # a NamedTuple of these


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_alone_is_success(status: int) -> None:
    assert after(0, Answer(status)) == ("delivered", None, False)


@pytest.mark.parametrize("status", [100, 199, 300, 301, 304, 400, 404, 500, None])
def test_all_else_is_tried_again(status: int | None) -> None:
    assert after(0, Answer(status)) == ("pending", 5.0, False)


def test_an_answer_that_did_not_end_is_no_success() -> None:
    assert after(0, Answer(200, "no answer within 15 s"))[0] == "pending"


def test_the_schedule_is_that_of_standard_webhooks() -> None:
    delays = [after(tries, BAD)[1] for tries in range(9)]
    assert delays == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert after(9, BAD) == ("dead", None, False)
    assert after(9, GOOD)[0] == "delivered"


@pytest.mark.parametrize("tries", range(len(DELAYS)))
def test_jitter_only_lengthens_a_delay(tries: int) -> None:
    shortest, longest = after(tries, BAD, 0.0)[1] or 0, after(tries, BAD, 0.999)[1] or 0
    assert DELAYS[tries] == shortest < longest < 1.2 * shortest


def test_410_ends_the_delivery_and_disables_its_endpoint() -> None:
    assert after(0, Answer(410)) == ("dead", None, True)


def test_a_url_that_no_later_try_would_mend_is_tried_once() -> None:
    assert after(0, Answer(None, "the URL must be https on port 443", final=True)) == ("dead", None, False)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (formatdate(NOW + 60, usegmt=True), 60.0),
        (formatdate(NOW - 60, usegmt=True), 5.0),
        ("3", 5.0),
        ("99999999999999999999999999", 86400.0),
        (formatdate(NOW + 10**8, usegmt=True), 86400.0),
        ("soon", 5.0),
        ("-5", 5.0),
        ("\u0663", 5.0),
        ("", 5.0),
        ("Mon, 99 Foo 2026 00:00:00 GMT", 5.0),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", 5.0),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", 5.0),
    ],
)
def test_retry_after_puts_a_delivery_off_within_bounds(header: str, seconds: float) -> None:
    assert after(0, Answer(503, None, header))[1] == pytest.approx(seconds, abs=1)


def test_retry_after_leaves_the_receiver_alone_for_a_while() -> None:
    assert pause(Answer(429, None, "10"), NOW) == 10.0
    assert pause(Answer(429, None, "100000"), NOW) == 300.0
    assert pause(Answer(429), NOW) == 0.0
    assert pause(Answer(200, None, "10"), NOW) == 0.0
