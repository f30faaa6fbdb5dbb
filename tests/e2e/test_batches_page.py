"""docs/batches.md: its commands, as they stand there, print what it shows."""

import re
import subprocess
from pathlib import Path

from tests.local import TREE, Local
from tundish.batchfile import Fault

PAGE = (TREE / "docs" / "batches.md").read_text()


def test_the_page_of_batch_files_does_what_it_says(tmp_path: Path) -> None:
    [commands] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    file, shown = re.findall(r"```\n(\{.*?)```", PAGE, re.DOTALL)
    [code] = re.findall(r"```python\n(.*?)```", (TREE / "README.md").read_text(), re.DOTALL)
    (tmp_path / "count.py").write_text(code)
    (tmp_path / "lines.jsonl").write_text(file)
    local = Local(tmp_path / "data", {"TUNDISH_MODELS": "count:Count"}, here=tmp_path)
    started = local.run("up", "-d")
    try:
        assert started.returncode == 0, started.stdout
        script = "set -e\n" + commands.replace("localhost:8000", f"localhost:{local.port}")
        ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    finally:
        assert local.run("down").returncode == 0
    expected = ".*".join(map(re.escape, shown.split("…")))
    assert re.fullmatch(expected, ran.stdout), ran


def test_the_page_names_every_code() -> None:
    for fault in Fault:
        assert f"`{fault}`" in PAGE.partition("## Codes")[2]
