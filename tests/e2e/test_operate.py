"""What an operator and bad luck do to a running system: each ends in a clear line, and leaves no process behind."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from local.http import Api
from tests.local import TREE, Local, ended, submit, wait_until


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    """A system of its own, not started; whatever a test left running is an error, and ended."""
    local = Local(tmp_path / "data", {"TUNDISH_LEASE": "3", "TUNDISH_MODELS": "tests.models:Echo,Gated"})
    yield local
    left = processes(local)
    for process in left:
        process.kill()
    assert not left


def processes(local: Local) -> list[psutil.Process]:
    """All processes that were given the system's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TUNDISH_DATA_DIR") == str(local.folder):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def read_until_ready(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    lines = ""
    for line in process.stdout:
        lines += line
        if "Ctrl-C" in line:
            return lines
    raise AssertionError(lines)


def test_up_prints_what_works_and_ctrl_c_stops_all_of_it(local: Local) -> None:
    local.settings["TUNDISH_API_KEY"] = 'it\'s "any" clé, 5 €\n'  # as out of a file
    with local.start("up") as process:
        said = read_until_ready(process)
        assert str(local.folder) in said
        [curl] = [line.split("try:")[1].strip() for line in said.splitlines() if "try:" in line]
        answer = subprocess.run(curl, shell=True, capture_output=True, text=True)
        assert '"status":"succeeded"' in answer.stdout, answer
        told = local.run("ps", "--json")
        assert told.returncode == 0
        shown = {row["name"]: row for row in json.loads(told.stdout)}
        assert list(shown) == list(local.ps()) == ["postgres", "valkey", "api", "worker", "courier", "chores"]
        for name, row in shown.items():
            assert list(row) == ["name", "pid", "state", "uptime_s", "restarts", "last_end", "url", "log"]
            assert row["state"] == "running"
            assert Path(row["log"]).is_file()
            assert (row["url"] is not None) == (name in ("postgres", "valkey", "api"))
        assert shown["api"]["url"] == local.url
        with local.client() as client:
            assert client.get("/readyz").json()["checks"] == {"database": "ok", "blobs": "ok", "redis": "ok"}
            (local.folder / "blobs").rename(local.folder / "elsewhere")
            unready = client.get("/readyz")
            assert (unready.status_code, unready.json()["status"]) == (503, "unavailable")
            assert int(unready.headers["retry-after"]) > 0
            assert "cannot be used" in unready.json()["checks"]["blobs"]
            able, missing = Api(local.url).readiness()
            assert (able, missing) == (False, f"blobs {unready.json()['checks']['blobs']}")
            assert client.get("/healthz").status_code == 200
            (local.folder / "elsewhere").rename(local.folder / "blobs")
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0, rest
    assert not processes(local)
    gone = local.run("ps", "--json")
    assert (gone.returncode, gone.stdout.strip()) == (1, "[]")


def test_a_second_up_a_port_in_use_and_a_restart_that_finds_its_data(local: Local, tmp_path: Path) -> None:
    with local.running("--workers", "2"):
        assert {"worker-1", "worker-2"} <= set(local.ps())
        with local.client() as client:
            job = client.post("/v1/jobs", json={"model": "echo", "input": {"value": "kept"}}).json()
            assert client.get(f"/v1/jobs/{job['id']}?wait=30").json()["status"] == "succeeded"
        in_use = Local(tmp_path / "other", local.settings, local.port).run("up")
        assert in_use.returncode == 1
        assert "set TUNDISH_PORT" in in_use.stdout
        for second in (local, Local(local.folder, local.settings)):
            refused = second.run("up")
            assert refused.returncode == 1
            assert "is in use by process" in refused.stdout
    assert not processes(local)
    assert local.run("down").stdout.startswith("nothing runs")
    with local.running(), local.client() as client:
        assert client.get(f"/v1/jobs/{job['id']}").json()["output"] == {"value": "kept"}


@pytest.mark.parametrize("words", [(), ("-d",)], ids=["here", "detached"])
@pytest.mark.parametrize(
    ("name", "value", "lines"),
    [
        (
            "TUNDISH_DEVICE",
            "cuda:99",
            ["up: worker has no device that it can use; its log ", "worker: the device cuda:99 cannot be used: "],
        ),
        (
            "TUNDISH_MODELS",
            "no.such.module:Model",
            ["worker ended during the start (exit status 2)", "there is no module no"],
        ),
    ],
    ids=["device", "model"],
)
def test_a_worker_that_cannot_serve_ends_the_start(
    local: Local, name: str, value: str, lines: list[str], words: tuple[str, ...]
) -> None:
    local.settings[name] = value
    failed = local.run("up", *words)
    assert failed.returncode == 1
    assert [line for line in lines if line not in failed.stdout] == [], failed.stdout
    assert not processes(local)


def test_a_worker_that_starts_while_postgres_is_away_says_so_in_a_line(system: Local, tmp_path: Path) -> None:
    nowhere = system.beside(TUNDISH_DATABASE_URL=f"postgresql:///tundish?host={tmp_path}")
    command = [sys.executable, "-P", "-m", "workers"]
    ended = subprocess.run(command, env=nowhere, cwd=TREE, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "\nworker: Postgres does not take what it serves: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_api_whose_port_is_in_use_names_the_setting(system: Local) -> None:
    command = [sys.executable, "-P", "-m", "api"]
    ended = subprocess.run(command, env=system.beside(), capture_output=True, text=True, timeout=60)
    assert ended.returncode
    assert f"api: 127.0.0.1:{system.port} cannot be used" in ended.stderr
    assert "set TUNDISH_PORT" in ended.stderr


def test_servers_that_are_given_replace_the_embedded_ones(local: Local, system: Local, tmp_path: Path) -> None:
    there = system.ps()
    database = there["postgres"]["url"].replace("/tundish?", "/given?")
    with psycopg.connect(there["postgres"]["url"], autocommit=True) as connection:
        connection.execute("CREATE DATABASE given")
    (tmp_path / "given").mkdir()
    local.settings |= {
        "TUNDISH_DATABASE_URL": database,
        "TUNDISH_REDIS_URL": there["valkey"]["url"] + "?db=5",
        "TUNDISH_BLOB_URL": f"file://{tmp_path}/given",
    }
    with local.running():
        assert list(local.ps()) == ["api", "worker", "courier", "chores"]
        with local.client() as client:
            job = client.post("/v1/jobs", json={"model": "echo", "input": {"value": "x" * 100_000}}).json()
            assert client.get(f"/v1/jobs/{job['id']}?wait=30").json()["status"] == "succeeded"
        assert any((tmp_path / "given").iterdir())


def test_kill_9_of_the_parent_leaves_no_process(local: Local) -> None:
    with local.start("up") as process:
        read_until_ready(process)
        assert len(processes(local)) > 6
        process.kill()
    assert local.run("down").stdout.endswith("stopped\n")  # it waits for what is being stopped
    wait_until(lambda: not processes(local), "all children ended", 40)
    with local.running():
        assert ready(local)


def test_a_dead_child_is_started_again_and_its_jobs_are_done(local: Local, tmp_path: Path) -> None:
    with local.running():
        before = local.ps()
        with local.client() as client:
            gate = {"folder": str(tmp_path), "name": "job"}
            job = client.post("/v1/jobs", json={"model": "gated", "input": gate}).json()
            wait_until((tmp_path / "began").exists, "predict began")
            os.kill(before["worker"]["pid"], signal.SIGKILL)
            (tmp_path / "open").touch()
            done = wait_until(
                lambda: (now := client.get(f"/v1/jobs/{job['id']}?wait=5").json())["status"] == "succeeded" and now,
                "the job is done by the next worker",
            )
            assert done["attempt"] == 2
            for name in ("api", "courier", "chores", "valkey", "postgres"):
                os.kill(before[name]["pid"], signal.SIGKILL)
            wait_until(
                lambda: all(row["state"] == "running" and row["pid"] != before[name]["pid"]
                            for name, row in local.ps().items()),
                "all were started again", 60,
            )  # fmt: skip
            assert {(row["restarts"], row["last_end"]) for row in local.ps().values()} == {(1, "signal 9")}
            assert "DeprecationWarning" not in (local.folder / "logs" / "worker.log").read_text()
            assert local.run("ps").stdout.count("  started again once, last ended with signal 9: ") == 6
            log = (local.folder / "logs" / "up.log").read_text()
            assert len(re.findall(r"^\d{4}-\d\d-\d\d [\d:]{8} \w+ ended \(signal 9\)", log, re.MULTILINE)) >= 6
            wait_until(lambda: ready(local), "the API is ready again", 60)
            answer = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}})
            assert client.get(f"/v1/jobs/{answer.json()['id']}?wait=60").json()["status"] == "succeeded"


def test_days_that_are_gone_are_made_again_soon(local: Local) -> None:
    """As where Postgres was restored from a copy that is older than the days which it has ahead."""
    with local.running():
        with psycopg.connect(local.ps()["postgres"]["url"], autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(hashtext('tundish:partitions'))")  # not yet
            days = connection.execute("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'").fetchall()
            for (day,) in days:
                connection.execute(f"DROP TABLE {day}")
            with local.client() as client:
                assert "partitions are missing" in client.get("/readyz").json()["checks"]["database"]
        wait_until(lambda: ready(local), "the API is ready again")
        with local.client() as client:
            assert ended(client, submit(client, "echo", {"value": 1})["id"])["status"] == "succeeded"


def test_a_catalog_that_has_lost_what_is_served_gets_it_again(local: Local) -> None:
    """As where Postgres was restored from a copy that is older than the model."""
    with local.running(), local.client() as client:
        with psycopg.connect(local.ps()["postgres"]["url"], autocommit=True) as connection:
            connection.execute("DELETE FROM aliases")
            connection.execute("DELETE FROM versions")
            known = "SELECT true FROM versions WHERE model = 'echo'"
            wait_until(lambda: connection.execute(known).fetchone(), "the worker has told of its models")
        asked: dict[str, Any] = {"model": "echo", "input": {"value": 1}}
        wait_until(lambda: client.post("/v1/jobs", json=asked).status_code == 202, "the API knows of them")
        assert ended(client, submit(client, **asked)["id"])["output"] == {"value": 1}


def ready(local: Local) -> bool:
    try:
        with local.client() as client:
            return bool(client.get("/readyz").json()["status"] == "ready")
    except httpx.HTTPError:
        return False


def test_a_path_too_long_for_a_socket(local: Local, tmp_path: Path) -> None:
    long = Local(tmp_path / ("x" * 60) / ("y" * 60), local.settings)
    with long.running():
        socket_folder = Path(long.ps()["valkey"]["url"].removeprefix("unix://")).parent
        assert socket_folder.stat().st_mode & 0o777 == 0o700
    assert not socket_folder.exists()


def test_a_folder_that_cannot_be_written(local: Local, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blocked = Local(tmp_path / "file" / "data", local.settings)
    failed = blocked.run("up")
    assert failed.returncode == 1
    assert "set TUNDISH_DATA_DIR to a folder you can write" in failed.stdout


def test_a_folder_that_is_no_database_is_left_as_it_is(local: Local) -> None:
    (file := local.folder / "postgres" / "mine.txt").parent.mkdir(parents=True)
    file.write_text("mine")
    failed = local.run("up", "-d")
    assert failed.returncode == 1
    assert f"{file.parent} has no PG_VERSION" in failed.stdout
    assert file.read_text() == "mine"


def test_the_port_is_checked_before_anything_starts(local: Local) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", local.port))
        busy.listen()
        failed = local.run("up")
    assert failed.returncode == 1
    assert failed.stdout == f"up: 127.0.0.1:{local.port} cannot be used: Address already in use; set TUNDISH_PORT\n"
    assert not list((local.folder / "logs").iterdir())


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("TUNDISH_LEASE", "soon", "TUNDISH_LEASE is 'soon'; set it to a number over 0"),
        ("TUNDISH_HOST", "192.0.2.1", "set TUNDISH_HOST\n"),
        ("TUNDISH_HOST", "no host", "set TUNDISH_HOST\n"),
        ("TUNDISH_HOST", "0.0.0.0", "without a key the API serves loopback only; set TUNDISH_API_KEY"),
        (
            "TUNDISH_DATABASE_URL",
            "postgresql://me@127.0.0.1:1/x",
            "the migration failed: migrations: connection failed",
        ),
        ("TUNDISH_BLOB_URL", "ftp://x", "set it to file:///directory or s3://bucket/prefix"),
        ("TUNDISH_BLOB_URL", "file:///no/folder", "the blob directory /no/folder cannot be used: No such file"),
        ("TUNDISH_OUTBOUND_ALLOW", "10.0.0.1/8", "TUNDISH_OUTBOUND_ALLOW"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(local: Local, name: str, value: str, line: str) -> None:
    local.settings[name] = value
    failed = local.run("up")
    assert failed.returncode == 1
    assert line in failed.stdout


def test_what_will_surprise_is_told_at_the_start(local: Local, tmp_path: Path) -> None:
    local.settings |= {"TUNDISH_REDIS_URL": "redis://127.0.0.1:1", "TUNDISH_TIMOUT": "5"}
    local.settings |= {"TUNDISH_MODELS": "tests.models:Echo,tests.shelf_models:Broken", "SHELF": str(tmp_path)}
    with local.running() as said:
        assert "up: TUNDISH_TIMOUT is no setting; do you mean TUNDISH_TIMEOUT?\n" in said
        assert "  note:          redis does not answer (ConnectionError): jobs are accepted and wait\n" in said
        assert "  note:          broken@1 cannot be loaded: OSError: the weights are not there\n" in said


def test_ctrl_c_while_the_folder_is_waited_for_ends_without_a_traceback(local: Local) -> None:
    local.folder.mkdir()
    with (local.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with local.start("up") as process:
            assert process.stdout
            assert "still being stopped" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30)[0] == ""
    assert process.returncode == 130


def test_ctrl_c_while_it_migrates_says_that_it_stopped(local: Local) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        local.settings["TUNDISH_DATABASE_URL"] = f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x"
        with local.start("up", group=True) as process:
            connection, _ = silent.accept()  # the migration's: it waits for an answer
            with connection:
                os.killpg(process.pid, signal.SIGINT)
                said = process.communicate(timeout=30)[0]
    assert said.splitlines()[-1] == "up: stopped", said
    assert "Traceback" not in said
    assert process.returncode == 1


def test_a_start_that_fails_again_shows_no_more_of_the_log_than_its_own(local: Local) -> None:
    local.settings["TUNDISH_HOST"] = "0.0.0.0"  # without a key: it is the API alone that says so, in one line
    first, second = (local.run("up").stdout.partition("ends with:")[2] for _ in range(2))
    assert second.count("\n    ") == first.count("\n    ") == 1, (first, second)


def test_the_demo_is_right(tmp_path: Path) -> None:
    shown = Local(tmp_path).run("demo")
    assert shown.returncode == 0, shown.stdout
    assert "Where is the package that I ordered?\n    0.495  My parcel has not arrived yet." in shown.stdout
    assert "all of it right" in shown.stdout


@pytest.mark.parametrize(("words", "code"), [([], 0), (["help"], 0), (["nonsense"], 2)])
def test_dev_says_what_it_can_do(words: list[str], code: int) -> None:
    ran = subprocess.run([TREE / "dev", *words], capture_output=True, text=True)
    assert ran.returncode == code
    for word in ("up", "down", "ps", "demo", "test", "check", "bench"):
        assert f"\n  {word}" in ran.stdout + ran.stderr
