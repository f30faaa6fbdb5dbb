"""`./dev up --reload FILE`: a saved change answers within 2 s, and a broken file leaves the last good one serving."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.local import TREE, Local, ended, wait_until

#: Seconds from a save to the first answer of the new code.
PROMISED = 2.0

MODEL = """
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from tundish import Batch, Model

@dataclass
class Text:
    text: str

@dataclass
class Answer:
    value: str

class Mine(Model[Text, Answer]):
    name = "mine"
    version = "1"
    max_batch = 1

    def load(self, device):
        self.word = "first"

    def predict(self, batch):
        return [Answer(f"{self.word} {item.text}") for item in batch]
"""


SECOND = MODEL[MODEL.index("class Mine") :].replace("Mine", "Second").replace('"mine"', '"second"')


def gated(source: str, started: Path, gate: Path) -> str:
    """A model whose predict says that it has started, and goes on once there is a gate."""
    waits = f"""
        Path({str(started)!r}).touch()
        while not Path({str(gate)!r}).exists():
            Event().wait(0.01)
        return ["""
    return source.replace("\n        return [", waits)


class Development:
    """`./dev up --reload`, its file, and what it says."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.file = folder / "mine.py"
        self.local = Local(folder / "data", {"TUNDISH_OUTBOUND_ALLOW": "127.0.0.0/8"})
        self.process = self.local.start("up", "--reload", str(self.file), *words)
        self.said = ""
        self._listener = threading.Thread(target=self._hear, daemon=True)
        self._listener.start()

    def _hear(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said += line

    def close(self) -> None:
        self._listener.join(30)
        assert self.process.stdout
        self.process.stdout.close()
        self.process.wait()

    def hear(self, what: str, since: int = 0) -> None:
        try:
            wait_until(lambda: what in self.said[since:], what, 30)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said: {self.said[since:]}") from None

    def save(self, source: str) -> None:
        """Save it, and wait until it is served."""
        since = len(self.said)
        self.file.write_text(source)
        self.hear(f"{self.file} is served", since)


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Development]:
    """Started before there is a file."""
    each = Development(tmp_path_factory.mktemp("reload"))
    try:
        each.hear("Ctrl-C stops it")
        yield each
        each.process.send_signal(signal.SIGINT)
        assert each.process.wait(30) == 0
    finally:
        each.local.run("down")
        each.close()


@pytest.fixture
def client(development: Development) -> Iterator[httpx.Client]:
    with development.local.client() as client:
        yield client


def submit(client: httpx.Client, model: str = "mine", **input: Any) -> httpx.Response:
    return client.post("/v1/jobs", json={"model": model, "input": input or {"text": "hello"}})


def answer(client: httpx.Client, model: str = "mine", **input: Any) -> Any:
    """What a job ends with; None where it is refused."""
    job = submit(client, model, **input)
    return ended(client, job.json()["id"])["output"] if job.status_code == 202 else None


def test_a_saved_change_answers_in_time_however_it_is_saved(development: Development, client: httpx.Client) -> None:
    assert "there is no such file" in development.said or development.file.exists()
    development.save(MODEL)
    assert answer(client) == {"value": "first hello"}
    for word, rename in (("other", True), ("third", False), ("first", True)):  # of like length: the size says nothing
        saved = time.monotonic()
        if rename:  # as editors do
            (part := development.file.with_suffix(".part")).write_text(MODEL.replace("first", word))
            part.rename(development.file)
        else:
            development.file.write_text(MODEL.replace("first", word))
        wait_until(lambda word=word: answer(client) == {"value": f"{word} hello"}, word)  # type: ignore[misc]  # mypy 9478
        took = time.monotonic() - saved
        print(f"answered {took:.2f} s after it was saved")
        assert took < PROMISED


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (MODEL + "\n    def", "SyntaxError"),
        ("import nowhere\n" + MODEL, "No module named 'nowhere'"),
        ("import sys\nsys.exit('no GPU')\n" + MODEL, "no GPU"),
        ("raise BaseException('skipped')\n" + MODEL, "skipped"),
        ("raise KeyboardInterrupt\n" + MODEL, "KeyboardInterrupt"),
        (MODEL.replace('self.word = "first"', "self.word = [][1]"), "in load\n"),
        (MODEL.replace("(Model[Text, Answer])", ""), "it defines no model"),
        (MODEL.replace("text: str", "text: object()"), "Text'> cannot be read from JSON"),
        (MODEL.replace("predict", "predicted"), "must define predict"),
        ("", "it defines no model"),
    ],
    ids=["syntax", "import", "exit", "base", "interrupt", "load", "no model", "schema", "abstract", "empty"],
)
def test_a_broken_file_leaves_the_last_good_one(
    development: Development, client: httpx.Client, broken: str, told: str
) -> None:
    development.save(MODEL)
    since = len(development.said)
    development.file.write_text(broken)
    development.hear("cannot be served; until it can, mine@1 stays as it was", since)
    development.hear(told, since)
    if "Traceback" in development.said[since:]:
        [first, *_] = [line for line in development.said[since:].splitlines() if " File " in line]
        assert str(development.file) in first
    assert answer(client) == {"value": "first hello"}
    saved = time.monotonic()
    development.file.write_text(MODEL.replace("first", "mended"))
    wait_until(lambda: answer(client) == {"value": "mended hello"}, "it is mended")
    assert time.monotonic() - saved < PROMISED


def test_jobs_in_flight_run_to_their_end(development: Development, client: httpx.Client, tmp_path: Path) -> None:
    started, gate, read = tmp_path / "started", tmp_path / "gate", tmp_path / "read"
    development.save(gated(MODEL, started, gate))
    ids = [submit(client).json()["id"] for _ in range(8)]
    wait_until(started.exists, "the first runs")
    since = len(development.said)
    development.file.write_text(MODEL.replace("first", "second") + f"\nPath({str(read)!r}).touch()\n")
    wait_until(read.exists, "the new code is there")
    assert "is served" not in development.said[since:]
    gate.touch()
    outputs = [ended(client, id)["output"]["value"] for id in ids]
    assert (outputs[0], outputs[-1]) == ("first hello", "second hello")
    assert outputs == sorted(outputs)


def test_what_was_claimed_for_a_class_that_is_gone_waits_for_it(development: Development, client: httpx.Client) -> None:
    body = b'{"text": "hello"}'
    given = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    development.save(MODEL + SECOND)
    with socket.create_server(("127.0.0.1", 0)) as origin:
        origin.settimeout(30)
        url = f"http://127.0.0.1:{origin.getsockname()[1]}/"
        job = client.post("/v1/jobs", json={"model": "second", "input_url": url}).json()
        asked, _ = origin.accept()
        development.save(MODEL)
        since = len(development.said)
        with asked:
            asked.sendall(given)
            development.hear("gave back 1 jobs", since)
        assert answer(client) == {"value": "first hello"}
        assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "queued"
        development.file.write_text(MODEL + SECOND)
        asked, _ = origin.accept()
        with asked:
            asked.sendall(given)
            assert ended(client, job["id"])["output"] == {"value": "first hello"}


def test_schemas_and_classes_come_and_go(development: Development, client: httpx.Client) -> None:
    development.save(MODEL)
    assert submit(client, text="hello", times=2).status_code == 422
    both = MODEL.replace("text: str", "text: str\n    times: int").replace("item.text}", "item.text * item.times}")
    both += SECOND.replace("item.text}", "item.text * item.times}")
    saved = time.monotonic()
    development.file.write_text(both.replace("first", "new"))
    wait_until(lambda: answer(client, text="ab", times=2) == {"value": "new abab"}, "the new schema")
    wait_until(lambda: answer(client, "second", text="ab", times=1) == {"value": "new ab"}, "the new class")
    assert time.monotonic() - saved < PROMISED
    assert "new version number" not in development.said
    refused = submit(client)
    assert (refused.status_code, refused.json()["errors"][0]["detail"]) == (422, "is required")
    versions = {each["name"]: each["versions"][0]["workers"] for each in client.get("/v1/models").json()["data"]}
    assert versions["second"]

    development.save(MODEL)
    waiting = submit(client, "second", text="ab", times=1).json()
    assert waiting["status"] == "queued"
    assert answer(client) == {"value": "first hello"}
    assert client.get(f"/v1/jobs/{waiting['id']}").json()["status"] == "queued"
    development.save(both)
    assert ended(client, waiting["id"])["output"] == {"value": "first ab"}


def test_what_a_model_prints_shows_and_a_new_version_is_told_from_the_default(
    development: Development, client: httpx.Client
) -> None:
    development.save(MODEL)
    since = len(development.said)
    second = MODEL.replace('version = "1"', 'version = "2"').replace("return [", 'print("told", len(batch)); return [')
    development.save(second)
    assert answer(client, "mine@2") == {"value": "first hello"}
    development.hear("worker | told 1", since)
    development.hear("mine alone still means version 1: ask for mine@2, or move its alias", since)


def test_it_goes_with_several_workers_in_the_background(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import nowhere\n" + MODEL)
    local = Local(tmp_path / "data")
    with local.running("--reload", str(file), "--workers", "2") as said:
        for worker in ("worker-1", "worker-2"):
            assert f"{worker} | ModuleNotFoundError: No module named 'nowhere'" in said
        file.write_text(MODEL)
        logs = [local.folder / "logs" / f"{worker}.log" for worker in ("worker-1", "worker-2")]
        for log in logs:
            wait_until(lambda log=log: "is served: mine@1" in log.read_text(), "both serve it")  # type: ignore[misc]  # mypy 9478
        with local.client() as client:
            assert [answer(client) for _ in range(8)] == [{"value": "first hello"}] * 8


def test_what_is_no_file_of_python_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "local", "up", "--reload", str(tmp_path)]
    refused = subprocess.run(command, cwd=TREE, env=Local(tmp_path).environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--reload takes a file of Python, FILE.py" in refused.stderr
