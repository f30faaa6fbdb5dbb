import base64
import json
import time
from datetime import UTC, datetime

import pytest

from tundish.ids import new_uuid
from tundish.job import Priority
from tundish.queue import BUNDLE, Message, Queue, bundles, decode, encode, time_of

QUEUE = Queue("minilm", "1.2-b", Priority.HIGH)


def test_a_name_and_back() -> None:
    assert QUEUE.name == "tundish:minilm@1.2-b:0:high"
    assert Queue.parse(QUEUE.name) == QUEUE


@pytest.mark.parametrize(
    "name",
    ["celery", "tundish:a@1:0", "tundish:a@1:0:urgent", "tundish:a@1:x:high", "tundish:a@1:00:high", "tundish:a:0:low"],
)
def test_a_name_that_is_none(name: str) -> None:
    assert Queue.parse(name) is None


@pytest.mark.parametrize("alone", [True, False])
def test_a_message_carries_its_ids(alone: bool) -> None:
    message = Message(tuple(new_uuid().hex for _ in range(3)), alone)
    envelope = json.loads(encode(QUEUE, message))
    assert decode(json.loads(base64.b64decode(envelope["body"]))[0]) == message
    assert abs(time_of(json.dumps(envelope).encode()).timestamp() - time.time()) < 5


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [1],
        [["x"], "no"],
        [[1], False],
        ["x", False],
        [["0" * 31 + "g"], False],
        [["0" * 32, "0" * 16, "0" * 16], False],
    ],
)
def test_arguments_that_are_not_ours(arguments: list[object]) -> None:
    with pytest.raises(ValueError, match=r"tundish\.run"):
        decode(arguments)


def test_jobs_of_one_queue_share_messages() -> None:
    other = Queue("minilm", "1.2-b", Priority.LOW)
    jobs = [(QUEUE, new_uuid()) for _ in range(BUNDLE + 1)] + [(other, new_uuid())]
    assert {name: len(messages) for name, messages in bundles(jobs).items()} == {QUEUE.name: 2, other.name: 1}
    assert {name: len(messages) for name, messages in bundles(jobs, alone=True).items()} == {
        QUEUE.name: BUNDLE + 1,
        other.name: 1,
    }


def test_what_says_nothing_of_its_time_was_never_sent_long_ago() -> None:
    strange = (b"{}", b"nonsense", b'{"headers":{"sent":1e18}}', b'{"headers":{"sent":"now"}}')
    assert min(map(time_of, strange)) > datetime.now(UTC)
