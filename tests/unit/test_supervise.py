"""What is told of a child that ended."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from local.supervise import Supervisor


def test_what_a_child_said_is_read_and_not_all_that_earlier_ones_said(tmp_path: Path) -> None:
    log, before = tmp_path / "worker.log", 1 << 40
    with log.open("wb") as file:
        file.seek(before)
        file.write(b"".join(b"line %d\n" % number for number in range(9)))
    supervisor: Any = object.__new__(Supervisor)
    supervisor._place = SimpleNamespace(log=lambda name: log)
    supervisor._children = {"worker": SimpleNamespace(logged=before)}
    shown = "".join(f"\n    line {number}" for number in range(4, 9))
    assert cast(Supervisor, supervisor).said("worker") == f"its log {log} ends with:{shown}"
