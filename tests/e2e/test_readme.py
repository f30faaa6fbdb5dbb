"""What the README shows, and the page that goes on with its model, works as it stands there."""

import gzip
import re
import subprocess
from pathlib import Path

import pytest

from tests.local import TREE, Local

README = (TREE / "README.md").read_text()
BATCHES = (TREE / "docs" / "batches.md").read_text()


@pytest.mark.parametrize("named", ["by a setting", "by a file"])
def test_the_readmes_model_is_served_from_a_users_folder(tmp_path: Path, named: str) -> None:
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    [curl] = re.findall(r"^(curl localhost:8000.*?\n.*?)\n```", README, re.DOTALL | re.MULTILINE)
    (tmp_path / "count.py").write_text(code)
    (tmp_path / "workers.py").write_text("raise RuntimeError('not ours')")
    spec = "count:Count"
    if named == "by a file":
        (tmp_path / "tundish.toml").write_text('[[models]]\nclass = "count:Count"\n')
        spec = ""
    local = Local(tmp_path / "data", {"TUNDISH_MODELS": spec}, here=tmp_path)
    with local.running() as said:
        [shown] = re.findall("try: +(.*)", said)
        assert '"output":{"words":3}' in subprocess.run(shown, shell=True, capture_output=True, text=True).stdout
        command = curl.replace("localhost:8000", f"localhost:{local.port}")
        answer = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert '"output":{"words":3}' in answer.stdout
        follow_the_page_of_batch_files(local)


def follow_the_page_of_batch_files(local: Local) -> None:
    [commands] = re.findall(r"```sh\n(.*?)```", BATCHES, re.DOTALL)
    file, shown = re.findall(r"```\n(\{.*?)```", BATCHES, re.DOTALL)
    (local.here / "lines.jsonl").write_text(file)
    script = "set -e\n" + commands.replace("localhost:8000", f"localhost:{local.port}")
    ran = subprocess.run(["bash", "-c", script], cwd=local.here, capture_output=True, text=True, timeout=60)
    assert re.fullmatch(".*".join(map(re.escape, shown.split("…"))), ran.stdout), ran


def test_the_examples_pages_show_inputs_that_their_models_take(tmp_path: Path) -> None:
    local = Local(tmp_path, {"TUNDISH_MODELS": ""})
    with local.running() as said:
        assert '"model": "minilm"' in said
        for page in sorted((TREE / "examples").glob("*/README.md")):
            [curl] = re.findall(r"^(curl localhost:8000.*?\n.*?)\n```", page.read_text(), re.DOTALL | re.MULTILINE)
            command = curl.replace("localhost:8000", f"localhost:{local.port}")
            answer = subprocess.run(command, shell=True, capture_output=True, text=True)
            assert '"status":"succeeded"' in answer.stdout, (page, answer)
        [follow] = re.findall(
            r"^(curl -N .*?)\n```", (TREE / "examples/generator/README.md").read_text(), re.DOTALL | re.MULTILINE
        )
        command = follow.replace("localhost:8000", f"localhost:{local.port}")
        shown = subprocess.run(command, shell=True, capture_output=True, text=True).stdout
        assert shown.count("event: output\n") == 2000
        assert shown.rpartition("event: status\n")[2].count('"status":"succeeded"') == 1


def test_the_page_of_payloads_uploads_a_file(tmp_path: Path) -> None:
    page = (TREE / "docs" / "payloads.md").read_text()
    [code], [commands] = (re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL) for language in ("python", "sh"))
    (tmp_path / "squeeze.py").write_text(code)
    local = Local(tmp_path / "data", {"TUNDISH_MODELS": "squeeze:Squeeze"}, here=tmp_path)
    with local.running():
        script = commands.replace("localhost:8000", f"localhost:{local.port}")
        ran = subprocess.run(["sh", "-e"], input=script, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran
        assert gzip.decompress((tmp_path / "numbers.gz").read_bytes()) == (tmp_path / "numbers.txt").read_bytes()
