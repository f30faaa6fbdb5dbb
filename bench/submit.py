"""submit: POST /v1/jobs by 64 connections, durable, with a key; beside the naive stack. One API process each."""

import json

from bench import load, naive, system
from bench.connection import request
from bench.measure import Measured, measure, row
from bench.peers.environment import NAIVE
from bench.plan import Plan
from bench.report import write

#: Three runs each of three hours gave 10.8, 12.0 and 9.9 times the naive stack.
RUNS = 9
BODY = json.dumps({"model": "words", "input": {"text": "Casting goes on while the ladle is changed."}}).encode()


def order(port: int, key: str, plan: Plan) -> load.Order:
    raw = request("POST", "/v1/jobs", key, BODY)
    return load.Order(port, load.requests([raw]), seconds=plan.of(6.0, 0.5), warm_up=plan.of(2.0, 0.2))


def ours(plan: Plan) -> load.Load:
    with system.started("bench.models:Words") as bench:
        return load.run(order(bench.system.settings.port, bench.system.api.key, plan), 202)


def naives(plan: Plan) -> load.Load:
    with naive.started() as peer:
        return load.run(order(peer.port, naive.KEY, plan), 202)


def shown(one: load.Load) -> str:
    return f"{one.rate:,.0f} requests/s, p99 {one.p99:.0f} ms, the client took {one.cpu:.0%} of a core"


def client(measured: Measured[load.Load]) -> dict[str, float]:
    """The most of a core that the load client took beside each side: near 1 it would be what was measured."""
    return {
        f"client beside {name}": max(each.cpu for each in loads) for name, loads in measured.values.items() if loads
    }


def main(plan: Plan) -> None:
    measured = measure("submit", lambda: ours(plan), {"naive": lambda: naives(plan)}, plan.of(RUNS, 1), shown)
    rate = row(
        "POST /v1/jobs, 64 connections",
        "requests/s",
        measured.of(lambda each: each.rate),
        reach={"naive": 10},
        moonshot={"naive": 15},
    )
    write("submit", plan, [rate], figures=client(measured), environments=(NAIVE,))
