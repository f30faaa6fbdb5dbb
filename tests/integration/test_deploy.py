"""What can be checked of Procfile and docker-compose.yml with no Docker engine."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.local import TREE, Local, free_port, wait_until
from tundish.settings import Settings


def procfile() -> dict[str, str]:
    return dict(re.findall(r"^(\w+): (.+)$", (TREE / "Procfile").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((TREE / "docker-compose.yml").read_text())
    return loaded


def test_the_processes_of_the_procfile_run_as_they_stand_there(
    system: Local, database_url: str, tmp_path: Path
) -> None:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TUNDISH_")} | {
        "TUNDISH_DATABASE_URL": database_url,
        "TUNDISH_REDIS_URL": system.ps()["valkey"]["url"] + "?db=3",
        "TUNDISH_BLOB_URL": f"file://{tmp_path}",
        "TUNDISH_MODELS": "tests.models:Echo",
        "TUNDISH_PORT": str(port),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    commands = procfile()
    assert list(commands) == ["release", "api", "worker", "courier", "chores"]
    release = subprocess.run(commands.pop("release").split(), cwd=TREE, env=environment, capture_output=True)
    assert release.returncode == 0, release.stderr
    running = {
        name: subprocess.Popen(command.split(), cwd=TREE, env=environment, stderr=subprocess.DEVNULL)
        for name, command in commands.items()
    }
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:

            def submitted() -> dict[str, Any] | None:
                try:
                    answer = client.post("/v1/jobs", json={"model": "echo", "input": {"value": 1}})
                except httpx.TransportError:
                    return None
                return answer.json() if answer.status_code == 202 else None

            job = wait_until(submitted, "the API takes a job")
            assert client.get(f"/v1/jobs/{job['id']}?wait=30").json()["status"] == "succeeded"
        assert {name: process.poll() for name, process in running.items()} == dict.fromkeys(running)
    finally:
        for process in running.values():
            process.terminate()
        codes = {name: process.wait(30) for name, process in running.items()}
    assert codes == dict.fromkeys(running, 0)


def test_compose_runs_the_procfiles_commands_over_the_three_stores(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) >= {"postgres", "redis", "seaweedfs", "worker-gpu", *procfile()}
    for name, command in procfile().items():
        assert services[name]["command"] == command.split()
    assert services["worker-gpu"]["profiles"] == ["gpu"]


def test_compose_gives_a_worker_longer_than_its_grace(compose: dict[str, Any]) -> None:
    for name in ("api", "worker", "worker-gpu", "courier"):
        assert int(compose["services"][name]["stop_grace_period"].removesuffix("s")) > Settings().grace


def test_compose_depends_and_mounts_on_what_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        for name, wanted in service.get("depends_on", {}).items():
            healthy = wanted["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in services[name]
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in compose["volumes"]
        for variable in service.get("environment", {}):
            if variable.startswith("TUNDISH_"):
                assert variable.removeprefix("TUNDISH_").lower() in Settings.__dataclass_fields__


def test_the_image_is_built_from_what_is_in_the_tree(compose: dict[str, Any]) -> None:
    text = (TREE / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\w+)", text, re.MULTILINE))
    used = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert used <= targets
    for line in re.findall(r"^COPY (.+) \./$", text, re.MULTILINE):
        assert all((TREE / name).exists() for name in line.split())
