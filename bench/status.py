"""status: GET /v1/jobs/{id} of finished jobs by 64 connections, with a key; beside the naive stack. One API process on
each side."""

from collections.abc import Sequence

from bench import load, naive, system
from bench.connection import request
from bench.measure import measure, row
from bench.peers.environment import NAIVE
from bench.plan import Plan
from bench.report import write
from bench.submit import client, shown
from tundish.ids import to_text

JOBS = 5_000
#: Three runs of one hour gave 9,100, 16,900 and 13,100 requests/s.
RUNS = 9


def order(port: int, key: str, ids: Sequence[str], plan: Plan) -> load.Order:
    raw = [request("GET", f"/v1/jobs/{id}", key) for id in ids]
    return load.Order(port, load.requests(raw), seconds=plan.of(6.0, 0.5), warm_up=plan.of(2.0, 0.2))


def ours(plan: Plan) -> load.Load:
    with system.started("bench.models:Words") as bench:
        bench.submit("words", [{"text": "a b c"}] * JOBS)
        worker = bench.start_worker()
        bench.wait_for_all(JOBS)
        bench.stop_worker(worker)
        bench.database.execute("ANALYZE jobs, requests, results")
        ids = [to_text("job", id) for id in bench.ids]
        return load.run(order(bench.system.settings.port, bench.system.api.key, ids, plan), 200)


def naives(plan: Plan) -> load.Load:
    with naive.started() as peer:
        return load.run(order(peer.port, naive.KEY, peer.finished(JOBS), plan), 200)


def main(plan: Plan) -> None:
    measured = measure("status", lambda: ours(plan), {"naive": lambda: naives(plan)}, plan.of(RUNS, 1), shown)
    rate = row(
        "GET /v1/jobs/{id}, 64 connections",
        "requests/s",
        measured.of(lambda each: each.rate),
        reach={"naive": 5},
        moonshot={"naive": 8},
    )
    write("status", plan, [rate], figures=client(measured), environments=(NAIVE,))
