import json
from pathlib import Path

import msgspec

from tundish.job import MESSAGE, MOVES, RETRYABLE, Code, Status, diagram, error_json

TREE = Path(__file__).parents[2]


def test_no_move_leaves_a_terminal_state() -> None:
    assert not [move for move in MOVES if move[0].terminal]
    reached = {to for _, to in MOVES}
    assert {status for status in Status if status.terminal} <= reached


def test_the_diagram_in_the_documentation_is_made_from_the_table() -> None:
    assert diagram() in (TREE / "ARCHITECTURE.md").read_text()


def test_an_error_says_whether_to_try_again() -> None:
    for code in Code:
        error = json.loads(error_json(code, "why\0\ud800"))
        assert list(error) == ["code", "message", "retryable"]
        assert error["retryable"] == (code in RETRYABLE)
    assert json.loads(error_json(Code.REJECTED, "x", {"a": 1}))["details"] == {"a": 1}


def test_an_error_is_json_to_every_reader_whatever_its_text_holds() -> None:
    """Half of a surrogate, even as an escape, is refused by msgspec, jq and others."""
    error = error_json(Code.MODEL_ERROR, "no file a\udcff\ud800\0 \U0001f600", {"pointer": "/\udcff"})
    assert msgspec.json.decode(error)["message"] == "no file a\\udcff\\ud800\0 \U0001f600"
    assert msgspec.json.decode(error)["details"] == {"pointer": "/?"}


def test_an_error_is_short_whatever_the_model_says() -> None:
    """It stands in every view of the job, and Postgres takes no row of a gigabyte: its worker tried that for ever."""
    error = msgspec.json.decode(error_json(Code.MODEL_ERROR, "long" * MESSAGE, {"pointer": "/" * MESSAGE}))
    assert error["message"] == "long" * (MESSAGE // 4) + " …"
    assert "details" not in error
    assert msgspec.json.decode(error_json(Code.REJECTED, "m" * MESSAGE))["message"] == "m" * MESSAGE
