"""The walk through a release in docs/models.md, every command as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.local import TREE, Local, wait_until

PAGE = (TREE / "docs" / "models.md").read_text()


def test_the_page_of_many_models_does_what_it_says(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "words.py").write_text(code)
    commands = [
        each for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for each in block.split("$ ")[1:]
    ]
    assert len(commands) == 18
    local = Local(tmp_path / "data", {"TUNDISH_MODELS": "words:Words1,Words2"}, here=tmp_path)
    with local.running():
        for each in commands:
            command, _, shown = each.partition("\n")
            follow(local, command, shown)


def follow(local: Local, command: str, shown: str) -> None:
    """Run a command until it prints what is shown, … being anything; one that changes something must at once."""
    expected = re.compile(".*".join(map(re.escape, shown.strip().split("…"))), re.DOTALL)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(TREE)}
    said: list[str] = []

    def right() -> bool:
        ran = subprocess.run(
            command.replace("localhost:8000", f"localhost:{local.port}"),
            shell=True, cwd=local.here, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        said[:] = [ran.stdout + ran.stderr]
        return ran.returncode == 0 and expected.fullmatch(ran.stdout.rstrip()) is not None

    try:
        wait_until(right, command, 0.001 if " -X " in command or " -d " in command else 30)
    except AssertionError as error:
        raise AssertionError(f"$ {command}\n{''.join(said)}\nis not as shown:\n{shown}") from error
