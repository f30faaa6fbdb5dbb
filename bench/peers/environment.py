"""A virtual environment for each peer under `.bench/`, made once for its list of packages."""

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from local.say import step
from local.supervise import TREE

#: What the benches keep: the peers' environments, and the results of quick runs.
PLACE = TREE / ".bench"

_VERSIONS = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


class CannotRun(Exception):
    """Why a peer cannot be measured here."""


@dataclass(frozen=True)
class Environment:
    """The packages of one peer, pinned; `name` is its folder."""

    name: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return PLACE / self.name

    def python(self) -> str:
        """Its interpreter; installs what is not installed yet. Raises CannotRun."""
        stamp = self.folder / "installed"
        wanted = "\n".join([platform.python_version(), *self.packages])
        program = str(self.folder / "bin" / "python")
        if stamp.exists() and stamp.read_text() == wanted:
            return program
        shutil.rmtree(self.folder, ignore_errors=True)
        with step(f"installing {self.name}"):
            _run([sys.executable, "-m", "venv", "--without-pip", str(self.folder)])
            # Our pip serves the other environment: not every Python brings one along for it.
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", program]
            _run([*pip, "install", "--no-input", "--quiet", *self.packages])
        stamp.write_text(wanted)
        return program

    def versions(self) -> dict[str, str]:
        """Of what was asked for; none where it is not installed."""
        names = [package.partition("==")[0].partition("[")[0] for package in self.packages]
        program = self.folder / "bin" / "python"
        if not (self.folder / "installed").exists():
            return {}
        ran = subprocess.run([str(program), "-c", _VERSIONS, *names], capture_output=True, text=True, check=True)
        return dict(json.loads(ran.stdout))


def _run(command: list[str]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        said = (ran.stderr or ran.stdout).strip().splitlines()
        errors = [line for line in said if line.startswith("ERROR")] or said[-1:] or ["no reason was given"]
        raise CannotRun(f"could not be installed: {shorten(errors[0], 160)}")


CELERY = Environment("celery", ("celery[redis]==5.7.0", "kombu==5.7.0", "redis==8.1.0"))
#: celery-batches 0.11 takes no Celery from 5.7 on.
BATCHES = Environment(
    "celery-batches", ("celery-batches==0.11", "celery[redis]==5.6.3", "kombu==5.7.0", "redis==8.1.0")
)
RAY = Environment("ray", ("ray[serve]==2.60.0", "celery[redis]==5.7.0", "kombu==5.7.0", "redis==8.1.0"))
NAIVE = Environment(
    "naive",
    (
        *("fastapi==0.165.0", "pydantic==2.14.4", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0"),
        *("asyncpg==0.32.0", "celery[redis]==5.7.0", "kombu==5.7.0", "redis==8.1.0"),
    ),
)
