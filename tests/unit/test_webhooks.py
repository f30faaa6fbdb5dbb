"""Signatures of webhooks: made, and checked."""

import pytest

from tundish import webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNED = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')


def test_the_vector_of_standard_webhooks() -> None:
    assert webhooks.sign(SECRET, *SIGNED) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_checks_signature_and_time() -> None:
    id, at, body = SIGNED
    headers = webhooks.headers([webhooks.new_secret(), SECRET], id, at, body)
    webhooks.verify(SECRET, {name.title(): value for name, value in headers.items()}, body, now=at + 299)
    for wrong in ({"now": at + 301}, {"now": at - 301}):
        with pytest.raises(webhooks.InvalidSignature, match="timestamp"):
            webhooks.verify(SECRET, headers, body, **wrong)
    with pytest.raises(webhooks.InvalidSignature, match="no signature"):
        webhooks.verify(SECRET, headers, body + b" ", now=at)
    with pytest.raises(webhooks.InvalidSignature, match="required"):
        webhooks.verify(SECRET, {}, body)
    for name, said in (("id", "\udcff"), ("signature", "v1,\udcff"), ("timestamp", "9" * 400)):
        with pytest.raises(webhooks.InvalidSignature):
            webhooks.verify(SECRET, {**headers, f"webhook-{name}": said}, body, now=at)
