"""wake: 2,000 callers each wait for a job by a long poll, the ends spread over 10 s: from the stored result to the
answer; beside callers who ask every second. The ratio says how many times sooner a long poll is answered."""

from bench import polls
from bench.measure import measure, quantile, row
from bench.plan import Plan
from bench.report import write
from bench.system import Bench, started
from tundish.ids import to_text

#: Seconds over which the jobs end.
SPREAD = 10.0
#: A p99 of 20 answers: three runs each of two hours gave 70 and 36 times.
RUNS = 9


def waits(bench: Bench, count: int, every: float | None = None) -> list[float]:
    """Milliseconds from each stored result to its caller's answer, both by the clock of this machine."""
    bench.empty()
    bench.submit("paced", [SPREAD * number / 2_000 for number in range(count)])
    ids = {to_text("job", id): id for id in bench.ids}
    with polls.waiting(polls.Order(bench.system.settings.port, bench.system.api.key, list(ids), every)) as callers:
        worker = bench.start_worker()
        heard = polls.heard(callers)
        bench.stop_worker(worker)
    # The moment of the recording statement: its commit, which takes its milliseconds, is counted as waiting.
    ended = dict(bench.database.execute("SELECT id, extract(epoch FROM finished_at) FROM jobs").fetchall())
    return [1000 * (at - float(ended[ids[text]])) for text, at in heard.items()]


def shown(took: list[float]) -> str:
    return f"p50 {quantile(took, 0.5):.1f} ms, p99 {quantile(took, 0.99):.1f} ms"


def main(plan: Plan) -> None:
    count = plan.of(2_000, 200)
    peer = "a poll every second"
    with started("bench.models:Paced") as bench:
        others = {peer: lambda: waits(bench, count, 1.0)}
        measured = measure("wake", lambda: waits(bench, count), others, plan.of(RUNS, 1), shown)
    p99 = row(
        f"{count:,} long polls, p99",
        "ms",
        measured.of(lambda took: quantile(took, 0.99)),
        reach={peer: 50},
        moonshot={peer: 300},
        times_less=True,
    )
    write("wake", plan, [p99])
