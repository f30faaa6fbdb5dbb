"""Logs: lines of JSON and of text."""

import ast
import io
import json
import logging
import re
from pathlib import Path
from unittest.mock import patch

import pytest

from tundish import logs

TREE = Path(__file__).parents[2]


def test_a_line_of_json_carries_ids_and_the_traceback() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    try:
        raise ValueError("b\0ad")
    except ValueError:
        logging.getLogger("workers.x").warning("it broke: %s", 1, extra={"job": "job_1", "other": 2}, exc_info=True)
    logging.getLogger("workers.x").debug("not shown")
    logging.getLogger("boto").info("not shown")
    [line] = stream.getvalue().splitlines()
    shown = json.loads(line)
    assert list(shown) == ["time", "level", "logger", "message", "job", "exception"]
    assert (shown["message"], shown["job"], shown["level"]) == ("it broke: 1", "job_1", "warning")
    assert "ValueError" in shown["exception"]


def test_a_line_of_text_is_for_a_person() -> None:
    stream = io.StringIO()
    logs.configure("text", "debug", stream)
    logging.getLogger("api").info("hello", extra={"request": "r1"})
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO     api: hello request=r1\n", stream.getvalue())
    with patch.object(stream, "isatty", lambda: True):
        logs.configure("", "debug", stream)
    logging.getLogger("api").info("again")
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO     api: again", stream.getvalue().splitlines()[1])


def test_what_a_line_is_given_beside_its_words_is_shown() -> None:
    parsed = [
        ast.parse(path.read_text()) for part in ("api", "tundish", "workers") for path in (TREE / part).rglob("*.py")
    ]
    calls = [
        each for tree in parsed for each in ast.walk(tree) if isinstance(each, ast.keyword) and each.arg == "extra"
    ]
    given = [each.value for each in calls if isinstance(each.value, ast.Dict)]
    assert {ast.literal_eval(name) for names in given for name in names.keys if name} == set(logs.IDS)


def test_what_fails_again_and_again_is_told_as_it_begins_and_once_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    outage = logs.Outage(logging.getLogger("workers.x"))
    with caplog.at_level(logging.INFO, "workers.x"):
        outage.over("reap")
        for error in ("away", "still away"):
            outage.waits("reap", error)
            outage.waits("bury", error)
        outage.over("reap")
        outage.over("reap")
        outage.waits("bury", "for a third time")
    assert caplog.messages == ["reap has to wait: away", "bury has to wait: away", "reap goes on, after 0 s"]
