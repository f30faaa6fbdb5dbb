"""`./dev ps`: each process of the running system."""

import json
import time
from pathlib import Path
from typing import Any

from local.place import alive, read_state
from local.say import say
from tundish.settings import Settings


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--json"]):
        say("usage: ./dev ps [--json]")
        return 2
    root = Settings.from_environment().data_dir.absolute()
    shown = rows(root)
    if arguments:
        say(json.dumps(shown, indent=1))
    elif not shown:
        say(f"nothing runs in {root}")
    for row in () if arguments else shown:
        process = f"{row['name']:10} {row['state']:11} {row['pid'] or '-':>8} {row['uptime_s']:>9.0f} s"
        say(f"{process}  {row['url'] or ''}{_restarts(row)}")
    return 0 if shown and all(row["state"] == "running" for row in shown) else 1


def rows(root: Path) -> list[dict[str, Any]]:
    """What `--json` shows of the system in a folder."""
    state = read_state(root) or {"pid": None, "children": []}
    supervised = bool(state["pid"]) and alive(state["pid"])
    return [_row(child, supervised) for child in state["children"]]


def _restarts(row: dict[str, Any]) -> str:
    if row["last_end"] is None:
        return ""
    times = "once" if row["restarts"] == 1 else f"{row['restarts']} times"
    again = f"started again {times}, " if row["restarts"] else ""
    return f"  {again}last ended with {row['last_end']}: {row['log']}"


def _row(child: dict[str, Any], supervised: bool) -> dict[str, Any]:
    runs = child["pid"] is not None and alive(child["pid"])
    state = child["state"] if supervised and (runs or child["state"] == "restarting") else "stopped"
    return {
        "name": child["name"],
        "pid": child["pid"] if state == "running" else None,
        "state": state,
        "uptime_s": round(time.time() - child["started_at"], 1) if state == "running" else 0,
        "restarts": child.get("restarts", 0),
        "last_end": child.get("last_end"),
        "url": child["url"],
        "log": child["log"],
    }
