"""`./dev up`: a bare machine to a running system."""

import argparse
import errno
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local import embed
from local.http import Api
from local.place import Place
from local.say import Stop, now, say, step
from local.supervise import TREE, Child, Supervisor
from tundish import store
from tundish.blobs import BlobUnavailable, open_blobs
from tundish.settings import SettingError, Settings, unknown

EXAMPLES = "examples.minilm:Embed,examples.eta:Arrival,examples.ranker:Rank,examples.generator:Generator"


@dataclass(frozen=True)
class System:
    """A running system."""

    api: Api
    place: Place
    supervisor: Supervisor
    settings: Settings


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev up", description="Start the whole system; Ctrl-C stops it.")
    parser.add_argument("-d", action="store_true", dest="detach", help="return when it is ready; ./dev down stops it")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="worker processes (1)")
    parser.add_argument("--reload", type=Path, metavar="FILE", help="serve this file's models, again after each save")
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.workers < 1:
        parser.error("--workers is 1 or more")
    if given.reload and (given.reload.suffix != ".py" or given.reload.is_dir()):
        parser.error(f"--reload takes a file of Python, FILE.py, and not {given.reload}")
    if given.detach:
        return _detach([word for word in arguments if word != "-d"])
    try:
        for line in unknown(os.environ):
            say(f"up: {line}")
        with running(Settings.from_environment(), given.workers, given.reload) as system:
            say(_welcome(system))
            if given.report is not None:
                _let_go(system.place, given.report)
            system.supervisor.run()
    except (Stop, SettingError) as stop:
        say(f"up: {stop}")
        return 1
    return 0


@contextmanager
def running(given: Settings, workers: int = 1, reload: Path | None = None) -> Iterator[System]:
    """Start everything, with so many workers, which serve what the settings name, or the file `reload`; and stop it at
    the end of the block. Raises Stop."""
    # The place first: what runs in it has the port too, and what still ends there is waited for.
    with closing(Place(given.data_dir)) as place:
        _check_port(given)
        _check_blobs(given)
        environment = _environment(given, place) | threads(workers)
        supervisor = Supervisor(place, environment)
        try:
            try:
                system = _start(given, place, supervisor, environment, list(_workers(given, workers, reload)))
            except Stop:
                # Ctrl-C reaches what the start runs as well: that this failed is no news then.
                if supervisor.asked_to_stop:
                    raise Stop("stopped") from None
                raise
            yield system
        finally:
            with step("stopping"):
                supervisor.stop()


#: How torch and tokenizers are told how many threads they may start.
THREADS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")


def threads(workers: int) -> dict[str, str]:
    """What so many workers are told, so that they share this machine's cores: else each would start a thread a core,
    and all of them wait for the slowest."""
    if workers < 2:
        return {}
    share = str(max(1, (os.cpu_count() or 1) // workers))
    return {name: share for name in THREADS if name not in os.environ}


def _environment(given: Settings, place: Place) -> dict[str, str]:
    """The children get all that we were given, and know where the tree lies."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TREE), environment.get("PYTHONPATH")]))
    environment["TUNDISH_HOST"] = given.host
    environment["TUNDISH_PORT"] = str(given.port)
    environment["TUNDISH_LOG_FORMAT"] = given.log_format or "text"
    if not given.models and not Path("tundish.toml").exists():
        environment["TUNDISH_MODELS"] = EXAMPLES
    if not given.secret:
        environment["TUNDISH_SECRET"] = place.secret()
    if not given.blob_url:
        (place.root / "blobs").mkdir(mode=0o700, exist_ok=True)
    environment["TUNDISH_BLOB_URL"] = given.embedded().blob_url
    environment["TUNDISH_CACHE_DIR"] = given.embedded().cache_dir
    return environment


def _start(
    given: Settings, place: Place, supervisor: Supervisor, environment: dict[str, str], workers: list[Child]
) -> System:
    if not given.database_url:
        with step("starting Postgres"):
            postgres = embed.postgres(place)
            url = environment["TUNDISH_DATABASE_URL"] = postgres.url or ""
            supervisor.start(postgres)
            supervisor.wait_for("Postgres", lambda: embed.answers(url), 60)
            embed.create_database(url)
    if not given.redis_url:
        with step("starting Valkey"):
            valkey = embed.valkey(place)
            redis_url = environment["TUNDISH_REDIS_URL"] = valkey.url or ""
            supervisor.start(valkey)
            supervisor.wait_for("Valkey", lambda: embed.pings(redis_url), 60)
    supervisor.environment.update(environment)
    with step("migrating"):
        _release(environment)
    host = f"[{given.host}]" if ":" in given.host else given.host
    api = Api(f"http://{host}:{given.port}".replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]"), given.api_key)
    supervisor.start(python("api", "api", url=api.url))
    names = {supervisor.start(worker): worker.name for worker in workers}
    supervisor.start(python("courier", "workers.courier", grace=given.grace))
    supervisor.start(python("chores", "workers.chores"))
    with step("starting the API"):
        supervisor.wait_for("the API", lambda: _ready(api), 60)
    with step("loading the models"):
        supervisor.wait_for("a worker", lambda: _serve(names, supervisor, environment["TUNDISH_DATABASE_URL"]), 300)
    return System(api, place, supervisor, given)


def _workers(given: Settings, count: int, reload: Path | None) -> Iterator[Child]:
    for name in ["worker"] if count == 1 else [f"worker-{number}" for number in range(1, count + 1)]:
        worker = python(name, "workers", grace=given.grace + 10)
        if reload:
            worker = replace(worker, command=[*worker.command, "--reload", str(reload)], heard=True)
        yield worker


def python(name: str, module: str, grace: float = 10.0, url: str | None = None) -> Child:
    """A process of ours."""
    # -P: the current folder is for models, which workers look up there; a folder `api` in it must not be ours.
    return Child(name, [sys.executable, "-P", "-m", module], grace=grace, url=url)


def _release(environment: dict[str, str]) -> None:
    command = [sys.executable, "-P", "-m", "migrations"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ran.returncode != 0:
        raise Stop(f"the migration failed: {(ran.stderr or ran.stdout).strip()[-2000:]}")


def _ready(api: Api) -> bool | str:
    ready, missing = api.readiness()
    return ready or missing


def _serve(names: Mapping[int, str], supervisor: Supervisor, database_url: str) -> bool:
    """Whether these processes serve models. Raises Stop where the device of one of them cannot be used."""
    engine = store.engine(database_url)
    try:
        with engine.begin() as connection:
            workers = store.workers(connection, seen_within=60)
    finally:
        engine.dispose()
    states = {each.pid: each.state for each in workers if each.host == socket.gethostname()}
    for pid, name in names.items():
        if states.get(pid) == "lost":
            raise Stop(f"{name} has no device that it can use; {supervisor.said(name)}")
    return all(states.get(pid, "stopped") != "stopped" for pid in names)


def _check_port(given: Settings) -> None:
    family = socket.AF_INET6 if ":" in given.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((given.host, given.port))
        except OSError as error:
            name = "TUNDISH_PORT" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "TUNDISH_HOST"
            raise Stop(f"{given.host}:{given.port} cannot be used: {error.strerror}; set {name}") from error


def _check_blobs(given: Settings) -> None:
    """A folder that is given must be there: it may be one of another machine, which is not mounted."""
    if given.blob_url.startswith("file:"):
        try:
            open_blobs(given).check()
        except BlobUnavailable as error:
            raise Stop(f"TUNDISH_BLOB_URL: {error}; make it, or mount it") from error


def _welcome(system: System) -> str:
    lines = [
        f"Tundish runs at {system.api.url} (docs: {system.api.url}/docs)",
        f"  data and logs: {system.place.root}",
        f"  try:           {curl(system.api)}",
        "  Ctrl-C stops it; ./dev down does so from elsewhere, ./dev ps shows its processes",
    ]
    _, missing = system.api.readiness()
    lines += [f"  note:          {note}" for note in (missing, *_unloaded(system.api).values()) if note]
    return "\n".join(lines)


def _unloaded(api: Api) -> dict[str, str]:
    """Why models could not be loaded, by name and version: they are in the catalog, and their jobs would fail."""
    workers: list[dict[str, Any]] = api.get("/v1/workers")["data"]
    places = [place for each in workers for place in each["places"].items()]
    errors = {target: lies["error"] for target, lies in places if lies.get("error")}
    return {target: error.partition("\n")[0] for target, error in sorted(errors.items())}


def curl(api: Api) -> str:
    """A line that submits a job to the first model that is served and has an example, and waits for its result; where
    none has one, a line that shows the models."""
    models: list[dict[str, Any]] = api.get("/v1/models")["data"]
    unloaded = _unloaded(api)
    known = {
        _asked(model, version["version"]): version["example"]
        for model in models
        for version in model["versions"]
        if version["workers"] and version["example"] is not None
        if f"{model['name']}@{version['version']}" not in unloaded
    }
    key = ["-H", "Authorization: Bearer " + api.key] if api.key else []
    if not known:
        return shlex.join(["curl", f"{api.url}/v1/models", *key])
    name = "minilm" if "minilm" in known else next(iter(known))
    body = json.dumps({"model": name, "input": known[name]})
    words = ["curl", f"{api.url}/v1/jobs", "-H", "Content-Type: application/json", "-H", "Prefer: wait=10", *key]
    return shlex.join([*words, "-d", body])


def _asked(model: dict[str, Any], version: str) -> str:
    """How a job asks for a version: the name alone may mean another one."""
    means = model["aliases"]["default"]["weights"]
    return str(model["name"]) if set(means) == {version} else f"{model['name']}@{version}"


def _detach(arguments: list[str]) -> int:
    """Start `up` in a session of its own, and repeat what it says until it is ready."""
    command = [sys.executable, "-P", "-m", "local", "up", *arguments]
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*command, "--report", str(writing)],
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=writing,
        pass_fds=[writing],
        start_new_session=True,
    )
    os.close(writing)
    with os.fdopen(reading) as lines:
        for line in lines:
            print(line.replace("Ctrl-C stops it; ./dev down does so from elsewhere,", "./dev down stops it,"), end="")
    # The pipe ends when it is ready, or has failed; in between there is no exit status.
    time.sleep(0.05)
    return process.poll() or 0


def _let_go(place: Place, report: int) -> None:
    """Close the pipe to who started us in the background: from now on, lines go to a log."""
    sys.stdout.flush()
    log = os.open(place.log("up"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    os.close(report)
    say(f"{now()} ready, process {os.getpid()}")
