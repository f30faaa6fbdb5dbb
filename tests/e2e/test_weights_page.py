"""The page of weights, every command as it stands there; and weights that are not there."""

import re
from pathlib import Path

from tests.e2e.test_models_page import follow
from tests.local import TREE, Local, ended

PAGE = (TREE / "docs" / "weights.md").read_text()
LOST = f"""
from line import Line

class Lost(Line):
    name = "lost"
    artifact = "sha256:{"0" * 64}"
"""


def test_the_page_of_weights_does_what_it_says(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "line.py").write_text(code)
    (tmp_path / "lost.py").write_text(LOST)
    commands = [
        each for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for each in block.split("$ ")[1:]
    ]
    assert len(commands) == 8
    local = Local(tmp_path / ".tundish", {"TUNDISH_MODELS": "line:Line,lost:Lost"}, here=tmp_path)
    for each in commands[:3]:
        follow(local, *each.partition("\n")[::2])
    with local.running():
        for each in commands[3:]:
            follow(local, *each.partition("\n")[::2])
        with local.client() as client:
            job = client.post("/v1/jobs", json={"model": "lost", "input": {"x": 1}}).json()["id"]
            done = ended(client, job)
            assert done["error"]["code"] == "model_load_failed"
            assert f"there is no artifact sha256:{'0' * 64}; push it" in done["error"]["message"]
        assert local.ps()["worker"]["state"] == "running"
