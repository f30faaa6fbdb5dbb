"""The chores are killed while they expand and collect batch files."""

import random
from collections.abc import Callable

from tests.chaos import files
from tests.chaos.invariants import ROWS, Row
from tests.chaos.load import Load
from tests.chaos.rig import Rig
from tests.local import wait_until

Times = Callable[[int], int]

#: Over two pages of lines.
LINES = 1200


def test_chores_are_killed_while_they_work_on_a_file(rig: Rig, load: Load, times: Times) -> None:
    chance, kills = random.Random(load.seed), times(40)
    for number in range(kills):
        file = files.send(rig, LINES)
        done = chance.choice([0, 1, LINES // 2, LINES])
        counted = ("running", "succeeded") if number % 2 else ("succeeded",)

        def far(file: files.File = file, done: int = done, counted: tuple[str, ...] = counted) -> bool:
            counts: dict[str, int] = files.seen(rig, file)["counts"]
            return sum(counts[name] for name in counted) >= done

        wait_until(far, f"{done} lines are done", 120)
        rig.parts["chores"].kill()
        assert files.wrong(rig, file) == []
    ROWS.append(Row("chores killed within a batch file", kills, kills * LINES, 0, 0, 0, 0))
