"""What can be checked of Procfile, docker-compose.yml and deploy/ with no Docker engine."""

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import event

from local.http import free_port
from local.up import EXAMPLES
from tests.local import TREE, Local, wait_until
from tests.s3 import ENVIRONMENT, Server
from tundish import store
from tundish.catalog import load_models
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


def test_compose_gives_every_setting_of_the_env_file_to_our_processes(compose: dict[str, Any]) -> None:
    """But the port, which is the one that is published."""
    for name in (*procfile(), "worker-gpu"):
        service = compose["services"][name]
        assert service["env_file"] == [{"path": ".env", "required": False}]
        assert service["environment"]["TUNDISH_PORT"] == 8000
    [published] = compose["services"]["api"]["ports"]
    assert published == "${TUNDISH_PORT:-8000}:8000"


def test_compose_finds_the_bucket_of_an_earlier_start(compose: dict[str, Any], tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        given = {**os.environ, **ENVIRONMENT, "TUNDISH_S3_ENDPOINT_URL": server.url}
        for _ in range(2):
            _, *words = compose["services"]["bucket"]["command"]
            made = subprocess.run([sys.executable, *words], env=given, capture_output=True, text=True)
            assert made.returncode == 0, made.stderr
    finally:
        server.kill()
    assert (tmp_path / "tundish").is_dir()


def test_compose_serves_the_models_of_dev_up(compose: dict[str, Any]) -> None:
    assert compose["services"]["worker"]["environment"]["TUNDISH_MODELS"] == f"${{TUNDISH_MODELS:-{EXAMPLES}}}"


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


KUBERNETES = TREE / "deploy" / "kubernetes"


@pytest.fixture(scope="module")
def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """Every object that the kustomization names, by kind and name."""
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    objects = [
        each for name in kustomization["resources"] for each in yaml.safe_load_all((KUBERNETES / name).read_text())
    ]
    assert len(list(KUBERNETES.glob("*.yaml"))) == len(kustomization["resources"]) + 1
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def pods(manifests: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods' specifications, by the process that each is labelled with."""
    templates = [each["spec"]["template"] for (kind, _), each in manifests.items() if kind in ("Deployment", "Job")]
    return {each["metadata"]["labels"]["process"]: each["spec"] for each in templates}


def variables(name: str) -> set[str]:
    return {line.partition("=")[0] for line in (KUBERNETES / name).read_text().splitlines()}


def test_kubernetes_runs_the_procfiles_commands(manifests: dict[tuple[str, str], dict[str, Any]]) -> None:
    found = pods(manifests)
    assert set(found) == set(procfile())
    for name, command in procfile().items():
        [container] = found[name]["containers"]
        assert container["command"] == command.split()
        assert container["image"] in ("tundish:cpu", "tundish:gpu")
        assert container["envFrom"] == [{"configMapRef": {"name": "tundish"}}, {"secretRef": {"name": "tundish"}}]
        given = variables("settings.env") | variables("secret.example.env")
        for variable in given | {each["name"] for each in container.get("env", ())}:
            assert variable.startswith("AWS_") or variable.removeprefix("TUNDISH_").lower() in (
                Settings.__dataclass_fields__
            )
    assert {"TUNDISH_DATABASE_URL", "TUNDISH_REDIS_URL", "TUNDISH_BLOB_URL", "TUNDISH_API_KEY"} <= given
    for name in ("api", "worker", "courier"):
        assert found[name]["terminationGracePeriodSeconds"] > Settings().grace
    for (kind, _), each in manifests.items():
        if kind == "Deployment":
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_kubernetes_gives_each_worker_a_gpu_and_its_pools_models(
    manifests: dict[tuple[str, str], dict[str, Any]],
) -> None:
    [worker] = pods(manifests)["worker"]["containers"]
    given = {each["name"]: each["value"] for each in worker["env"]}
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert given["TUNDISH_DEVICE"] == "cuda:0"
    assert worker["image"] == "tundish:gpu"
    served = load_models("", KUBERNETES)
    assert {each.pool for each in served} == {given["TUNDISH_POOL"]}
    mounted = {each["name"]: each["mountPath"] for each in worker["volumeMounts"]}
    [workdir] = re.findall(r"^WORKDIR (.+)$", (TREE / "Dockerfile").read_text(), re.MULTILINE)
    assert mounted["models"] == f"{workdir}/tundish.toml"


def test_kubernetes_gives_a_workers_cache_a_volume_that_it_does_not_fill(
    manifests: dict[tuple[str, str], dict[str, Any]],
) -> None:
    pod = pods(manifests)["worker"]
    [worker] = pod["containers"]
    given = {each["name"]: each["value"] for each in worker["env"]}
    mounted = {each["name"]: each["mountPath"] for each in worker["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert mounted.keys() == volumes.keys()
    assert mounted["cache"] == given["TUNDISH_CACHE_DIR"]
    limit = int(volumes["cache"]["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
    assert limit // 2 < int(given["TUNDISH_CACHE_BYTES"]) < limit


def test_keda_asks_for_what_the_api_serves(
    manifests: dict[tuple[str, str], dict[str, Any]], client: httpx.Client
) -> None:
    scaled = manifests["ScaledObject", "worker-gpu"]["spec"]
    target = manifests["Deployment", scaled["scaleTargetRef"]["name"]]
    assert "replicas" not in target["spec"]
    assert scaled["minReplicaCount"] == 0
    assert 0 < scaled["fallback"]["replicas"] <= scaled["maxReplicaCount"]
    assert scaled["fallback"]["behavior"] == "currentReplicasIfHigher"
    [trigger] = scaled["triggers"]
    url = httpx.URL(trigger["metadata"]["url"])
    service = manifests["Service", url.host.partition(".")[0]]
    assert service["spec"]["selector"].items() <= (
        manifests["Deployment", "api"]["spec"]["template"]["metadata"]["labels"].items()
    )
    pool = target["spec"]["template"]["metadata"]["labels"]["pool"]
    assert url.path == f"/v1/pools/{pool}"
    # The same call of a pool that there is here, read as the scaler reads it.
    answer = client.get(url.raw_path.decode().replace(pool, "default"))
    assert answer.status_code == 200
    assert isinstance(answer.json()[trigger["metadata"]["valueLocation"]], int)
    assert (trigger["metadata"]["authMode"], trigger["metadata"]["targetValue"]) == ("bearer", "1")
    authentication = manifests["TriggerAuthentication", trigger["authenticationRef"]["name"]]["spec"]
    [secret] = authentication["secretTargetRef"]
    assert (secret["parameter"], secret["name"]) == ("token", "tundish")
    assert secret["key"] in variables("secret.example.env")


def test_a_worker_has_the_same_settings_through_the_pooler() -> None:
    asked: list[str] = []

    def connect(**given: Any) -> None:
        asked.extend(re.findall(r"-c (\w+=\S+)", given["options"]))
        raise ConnectionError

    engine = store.engine("postgresql://u@h/d", by_ids=True)
    event.listen(engine, "do_connect", lambda dialect, record, cargs, cparams: connect(**cparams))
    with pytest.raises(ConnectionError):
        engine.connect()
    pooler = ConfigParser()
    pooler.read(TREE / "deploy" / "pgbouncer.ini")
    given = re.findall(r"SET (\w+) = (\w+)", pooler["databases"]["tundish"].replace("''", ""))
    assert [f"{name}={value}" for name, value in given] == asked
