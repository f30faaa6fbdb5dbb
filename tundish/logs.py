"""Logs: lines of JSON for machines, text on a terminal. Ids of requests, jobs and the like come by `extra`."""

import json
import logging
import sys
import time
from typing import TextIO

#: What `extra` may carry into a line.
IDS = ("request", "job", "claim", "batch", "worker", "delivery")


class JsonLines(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, ids, and the exception's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in IDS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Text(logging.Formatter):
    """For a person: time, level, logger, message, then the ids; with the day where it is read on another one."""

    def __init__(self, dated: bool) -> None:
        time = "%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S"
        super().__init__("%(asctime)s %(levelname)-8s %(name)s: %(message)s", time)

    def formatMessage(self, record: logging.LogRecord) -> str:
        ids = [f" {name}={getattr(record, name)}" for name in IDS if hasattr(record, name)]
        return super().formatMessage(record) + "".join(ids)


def configure(format: str, level: str, stream: TextIO = sys.stderr) -> None:
    """Send every logger's lines to `stream`. `format` is json or text; empty: text on a terminal, else json. The
    libraries below us speak from warning on."""
    text = format == "text" or (not format and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Text(dated=not stream.isatty()) if text else JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("tundish", "api", "workers", "local", "examples"):
        logging.getLogger(ours).setLevel(level.upper())
    logging.captureWarnings(True)


class Outage:
    """Tells of what fails again and again as that begins, and once it is over: a line a try would bury the rest."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._since: dict[str, float] = {}

    def waits(self, what: str, error: object) -> None:
        """It has failed, and is tried again."""
        level = logging.DEBUG if what in self._since else logging.WARNING
        self._since.setdefault(what, time.monotonic())
        self._logger.log(level, "%s has to wait: %s", what, error)

    def over(self, what: str) -> None:
        """It was done."""
        since = self._since.pop(what, None)
        if since is not None:
            self._logger.info("%s goes on, after %.0f s", what, time.monotonic() - since)
