"""Every setting, read from the environment in this one place.

Each field's comment gives its variable's unit. The README's settings table lists the same, and a test holds the
two together.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: What the value of a setting begins with.
_SCHEMES = {
    "TUNDISH_DATABASE_URL": ("postgresql://", "postgres://", "postgresql+psycopg://"),
    "TUNDISH_REDIS_URL": ("redis://", "rediss://", "unix://"),
    "TUNDISH_PUBLIC_URL": ("http://", "https://"),
    "TUNDISH_S3_ENDPOINT_URL": ("http://", "https://"),
}
#: What stands in headers and in URLs of ours.
_LINKED = ("TUNDISH_PUBLIC_URL", "TUNDISH_S3_ENDPOINT_URL")
_PLAIN = re.compile("[!-~]+")
_CHOICES = {
    "TUNDISH_LOG_FORMAT": ("json", "text"),
    "TUNDISH_LOG_LEVEL": ("debug", "info", "warning", "error"),
}
#: Seconds, of whatever. No id is of before 1970, and no clock waits for longer than it can count.
LONGEST = 1e9


class SettingError(ValueError):
    """A variable of the environment that cannot be used; the message says which, and what to set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process. Field `lease` is the variable TUNDISH_LEASE, and so on."""

    data_dir: Path = Path(".tundish")  # where the embedded parts, logs and pids of `./dev up` lie
    host: str = "127.0.0.1"  # address that the API binds
    port: int = 8000  # port that the API binds
    api_key: str = ""  # the one key of a plain installation; empty: loopback only
    database_url: str = ""  # postgresql://…
    redis_url: str = ""  # redis://… or unix://…
    blob_url: str = ""  # file:///dir or s3://bucket/prefix
    s3_endpoint_url: str = ""  # for S3-compatible stores other than AWS
    models: str = ""  # package.module:Class,…
    pool: str = "default"  # the pool that a worker belongs to
    device: str = "cpu"  # torch's name of the worker's device
    device_memory: int = 0  # bytes of the device for a worker's models; 0: most of what others leave, on a CPU no limit
    host_memory: int = 0  # bytes for models that made room; 0: a quarter of the machine's, for all its workers
    cache_dir: str = ""  # where artifacts lie once they were pulled; empty: ~/.cache/tundish
    cache_bytes: int = 0  # bytes that the cache takes at most; 0: half of its disk
    max_jobs: int = 0  # jobs after which a worker is replaced; 0: never
    max_rss: int = 0  # bytes of memory past which a worker is replaced; 0: never
    max_device_memory: int = 0  # bytes that a worker takes of its device past which it is replaced; 0: never
    public_url: str = ""  # links are absolute with it, else relative
    secret: str = ""  # signs blob URLs; every API process must have the same. Empty: derived from api_key
    lease: float = 30.0  # seconds that a claim holds without a heart-beat
    timeout: float = 300.0  # seconds of one predict
    max_attempts: int = 3  # worker deaths that a job survives, plus one
    grace: float = 30.0  # seconds after SIGTERM to finish what has begun
    retention: float = 604800.0  # seconds that a job is kept
    max_body: int = 16777216  # bytes of a request's body, and of an input that is fetched from a URL into memory
    inline_max: int = 65536  # bytes of a payload kept in Postgres; larger ones are blobs
    outbound_allow: tuple[Network, ...] = ()  # networks that webhooks and input URLs may reach though private
    log_format: str = ""  # json or text; empty: text on a terminal, else json
    log_level: str = "info"  # debug, info, warning or error

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read TUNDISH_* from `environment`, less the white space around: what comes out of a file ends in a newline.
        Raises SettingError for a value that the setting cannot have."""
        given: dict[str, object] = {}
        for field in fields(cls):
            variable = f"TUNDISH_{field.name.upper()}"
            text = environment.get(variable, "").strip()
            if text:
                given[field.name] = _parse(variable, text.lower() if variable in _CHOICES else text, field.default)
        settings = cls(**given)  # type: ignore[arg-type]  # each value was parsed to its field's own type
        return replace(settings, public_url=settings.public_url.rstrip("/"))  # each link brings its own slash

    def demand(self, *names: str) -> None:
        """Raises SettingError where one of these has no value."""
        if missing := [f"TUNDISH_{name.upper()}" for name in names if not getattr(self, name)]:
            raise SettingError(f"set {', '.join(missing)}; `./dev up` starts what it needs and sets it")

    def embedded(self) -> "Settings":
        """With the blobs and the cache of `./dev up` in this folder, where none are set."""
        root = self.data_dir.absolute()
        return replace(
            self, blob_url=self.blob_url or f"file://{root}/blobs", cache_dir=self.cache_dir or f"{root}/cache"
        )


def unknown(environment: Mapping[str, str]) -> list[str]:
    """What to tell of the variables that are named as settings and are none."""
    known = [field.name.upper() for field in fields(Settings)]
    given = sorted(name.removeprefix("TUNDISH_") for name in environment if name.startswith("TUNDISH_"))
    told: list[str] = []
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)  # without what they all begin with, by which each is near each
            told.append(f"TUNDISH_{name} is no setting" + (f"; do you mean TUNDISH_{near[0]}?" if near else ""))
    return told


def _parse(variable: str, text: str, default: object) -> object:
    kind = type(default)
    if kind is tuple:
        return _networks(variable, text)
    if kind not in (int, float):
        if kind is str and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise SettingError(f"{variable} is not UTF-8") from None
        if variable in _SCHEMES:
            _check_url(variable, text)
        if variable in _CHOICES and text not in _CHOICES[variable]:
            raise SettingError(f"{variable} is {text!r}; set it to {' or '.join(_CHOICES[variable])}")
        return kind(text)  # type: ignore[call-arg]  # a str or a Path
    try:
        number = kind(text)
    except ValueError:
        number = -1
    if number != default and not 0 < number < float("inf"):
        wanted = "a whole number" if kind is int else "a number"
        raise SettingError(f"{variable} is {text!r}; set it to {wanted} {'over 0' if default else 'of 0 or more'}")
    if kind is float and number > LONGEST:
        raise SettingError(f"{variable} is {text!r}; set it to at most {LONGEST:.0f} seconds, which are 31 years")
    if variable == "TUNDISH_PORT" and number > 65535:
        raise SettingError(f"{variable} is {text!r}; set it to a port, 1 to 65535")
    return number


def _check_url(variable: str, text: str) -> None:
    """A URL may hold a password, and is not shown."""
    if not text.startswith(_SCHEMES[variable]):
        raise SettingError(f"{variable} is no such URL; set it to {' or '.join(f'{s}…' for s in _SCHEMES[variable])}")
    if variable == "TUNDISH_DATABASE_URL":  # its driver takes a password as it is
        scheme, _, rest = text.partition("?")[0].partition("://")
        text = f"{scheme}://{rest.rpartition('@')[2]}"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        hint = "in a name or a password percent-encode / ? # [ ] @"
        raise SettingError(f"{variable} is no URL: its host or port cannot be read; {hint}") from None
    if variable in _LINKED and not (host and _PLAIN.fullmatch(text)):
        raise SettingError(f"{variable} is {text!r}; set it to a URL with a host, of ASCII without spaces")


def _networks(variable: str, text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(each.strip()) for each in text.split(",") if each.strip())
    except ValueError as error:
        raise SettingError(f"{variable}: {error}; give networks such as 10.0.0.0/8") from error
