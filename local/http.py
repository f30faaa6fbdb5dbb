"""A few lines of HTTP, to ask our own API; and a port for one."""

import json
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO, Any

from local.say import Stop

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy: it is this machine


@dataclass(frozen=True)
class Api:
    url: str
    key: str = ""

    def status(self, path: str) -> int | None:
        """The status of a GET; None where nobody answers."""
        try:
            with _OPENER.open(self._request(path), timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def readiness(self) -> tuple[bool, str]:
        """Whether it can take a submit, and what it misses, where it says so."""
        try:
            with _OPENER.open(self._request("/readyz"), timeout=5) as answer:
                return True, _missing(answer)
        except urllib.error.HTTPError as error:
            return False, _missing(error)
        except OSError:
            return False, ""

    def get(self, path: str) -> Any:
        return self._ask(self._request(path))

    def post(self, path: str, body: Any) -> Any:
        return self._ask(self._request(path, json.dumps(body).encode()))

    def _request(self, path: str, body: bytes | None = None) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self.key:
            # In UTF-8, as the API reads it: http.client writes a header in Latin-1.
            headers["Authorization"] = f"Bearer {self.key}".encode().decode("latin-1")
        return urllib.request.Request(self.url + path, body, headers)

    def _ask(self, request: urllib.request.Request) -> Any:
        try:
            with _OPENER.open(request, timeout=90) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Stop(f"{request.get_method()} {request.full_url}: {error.code} {error.read().decode()}") from error
        except OSError as error:
            raise Stop(f"{request.get_method()} {request.full_url}: {error}") from error


def _missing(answer: IO[bytes]) -> str:
    try:
        checks: dict[str, str] = json.load(answer)["checks"]
    except (ValueError, KeyError):  # somebody else answers under this address
        return ""
    return "; ".join(f"{name} {found}" for name, found in checks.items() if found != "ok")


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
