"""A real server of the S3 protocol (rclone): it checks signatures, and can be killed."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from local.http import free_port
from tests.local import wait_until

KEY, SECRET = "access", "very-secret"
#: Where boto3 looks for credentials and region.
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}


class Server:
    """Serves `bucket`, a folder in `folder`."""

    def __init__(self, folder: Path) -> None:
        (folder / "bucket").mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone"
        self.process = subprocess.Popen(
            [program, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}",
             "--config", str(folder / "none"), "--vfs-cache-mode", "off", "-q"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self._answers, "the S3 server answers")

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url, trust_env=False).status_code > 0
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
