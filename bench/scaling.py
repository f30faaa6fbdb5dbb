"""`python -m bench.scaling`: what a large installation takes, from the costs that `./dev bench costs` measured.

Pure: costs and a scenario go in, a plan and a simulated day come out. A job alone costs what a flush or a batch of its
own costs; among others it shares that: `together + (alone - together) / group`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

#: A second of one core, in microseconds.
CORE = 1e6
MINUTES = 24 * 60
#: Of a part's capacity, so that a queue before it stays short.
FILLED = 0.6


#: Jobs a second beyond which a part does not depend on them.
MOST = 1e9


def bisect(function: Callable[[float], float], wanted: float, most: float) -> float:
    """Where from 0 to `most` a function that grows is `wanted`; `most` where it is not."""
    least = 0.0
    for _ in range(80):
        middle = (least + most) / 2
        least, most = (middle, most) if function(middle) < wanted else (least, middle)
    return least


@dataclass(frozen=True)
class Cost:
    """Microseconds, or bytes, of one job."""

    together: float
    alone: float

    def of(self, group: float) -> float:
        """In a flush or batch of `group` jobs."""
        return self.together + max(0.0, self.alone - self.together) / max(1.0, group)


@dataclass(frozen=True)
class Costs:
    """What was measured: `figures` by `part what how`, as bench.costs writes them."""

    figures: Mapping[str, float]

    def cost(self, part: str, what: str) -> Cost:
        figures = self.figures
        return Cost(figures.get(f"{part} {what} together", 0.0), figures.get(f"{part} {what} alone", 0.0))

    def __getitem__(self, name: str) -> float:
        return self.figures.get(name, 0.0)


@dataclass(frozen=True)
class Scenario:
    """A day's load. What is not measured is named here: the hardware, and what callers do."""

    jobs_a_day: float = 100e6
    peak: float = 3.0  # times the day's mean
    gpus: int = 1_000
    gpu_seconds: float = 0.2  # of one job
    full_batch: int = 16
    waits: float = 1.0  # long polls a job
    reads: float = 1.0  # other status calls a job
    blobs: float = 0.1  # of the jobs: an input and an output over TUNDISH_INLINE_MAX
    inline_bytes: float = 2_000.0  # input and output of the others, in Postgres
    retention_days: float = 7.0
    flush_seconds: float = 0.004  # while one flush commits, the next gathers
    postgres_cores: float = 16.0
    wal_bytes: float = 200e6  # a second, that a disk writes and a standby follows
    connections: float = 500.0  # of one Postgres
    s3_puts: float = 3_500.0  # a second and prefix, as S3 documents
    outage_minutes: int = 60  # half of the GPUs are away, from the peak on

    @property
    def mean(self) -> float:
        """Jobs a second."""
        return self.jobs_a_day / 86_400

    @property
    def gpu_rate(self) -> float:
        """Jobs a second of all GPUs."""
        return self.gpus / self.gpu_seconds


@dataclass(frozen=True)
class Part:
    """A part of the system: what `rate` jobs a second demand of it, and the capacity of one, in the same unit."""

    name: str
    capacity: float
    demand: Callable[[float], float]
    split: str

    def carries(self) -> float:
        """The jobs a second that fill one of it as far as is planned."""
        wanted = FILLED * self.capacity
        if self.demand(0.0) >= wanted:
            return 0.0
        return bisect(self.demand, wanted, MOST)

    def needed(self, rate: float) -> int:
        return max(1, math.ceil(self.demand(rate) / (FILLED * self.capacity)))


def batch(scenario: Scenario, rate: float, gpus: float = 1.0) -> float:
    """Jobs of a batch, with a fraction `gpus` of the GPUs there: what gathers while a batch runs is the next one."""
    busy = rate / (scenario.gpu_rate * gpus)
    return min(float(scenario.full_batch), 1 / (1 - busy)) if busy < 1 else float(scenario.full_batch)


def parts(costs: Costs, scenario: Scenario) -> list[Part]:
    """What the load passes. An API process is looked at by itself: how many jobs share a flush depends on its rate."""

    def flush(rate: float) -> float:
        return max(1.0, rate * scenario.flush_seconds)

    api_submit = costs.cost("api", "submit")
    asked = scenario.waits * costs["api run alone"] + scenario.reads * costs["api read together"]

    def api(rate: float) -> float:
        return rate * (api_submit.of(flush(rate)) + asked) + costs["api idle"]

    process = Part("API process", CORE, api, "any number behind a balancer")
    one = process.carries()

    def stored(part: str) -> Callable[[float], float]:
        """What Postgres or Redis has to do, while API processes are as full as is planned."""
        submit, run, read = costs.cost(part, "submit"), costs.cost(part, "run"), costs[f"{part} read together"]

        def demand(rate: float) -> float:
            shared = flush(min(rate, one))
            work = submit.of(shared) + run.of(batch(scenario, rate)) + scenario.reads * read
            return rate * work + scenario.gpus * costs[f"{part} beat"]

        return demand

    wal = stored("wal")
    inline = (1 - scenario.blobs) * scenario.inline_bytes
    held = costs["connections of a worker"] * scenario.gpus
    databases = "several databases, by tenant or model"
    return [
        process,
        Part("Postgres, CPU", scenario.postgres_cores * CORE, stored("postgres"), databases),
        Part("Postgres, WAL", scenario.wal_bytes, lambda rate: wal(rate) + rate * inline, databases),
        Part(
            "Postgres, connections",
            scenario.connections,
            lambda rate: held + costs["connections of an api"] * math.ceil(rate / one),
            "a pooler, or with the databases",
        ),
        Part("Redis, one thread", CORE, stored("valkey"), "several servers, by pool"),
        Part(
            "S3, puts of a prefix", scenario.s3_puts, lambda rate: 2 * rate * scenario.blobs, "by day and job already"
        ),
    ]


@dataclass(frozen=True)
class Minute:
    """One of a simulated day: jobs a second that come and that end, and jobs that wait at its end."""

    minute: int
    arrive: float
    end: float
    backlog: float
    batch: float


def day(scenario: Scenario) -> list[float]:
    """Jobs a second in each minute: the exponential of a cosine, with its top at two in the afternoon, whose peak and
    mean are the scenario's."""

    def shape(steepness: float) -> list[float]:
        raw = [math.exp(steepness * math.cos(2 * math.pi * (minute / MINUTES - 14 / 24))) for minute in range(MINUTES)]
        mean = sum(raw) / MINUTES
        return [each / mean for each in raw]

    steepness = bisect(lambda steep: max(shape(steep)), scenario.peak, 50.0)
    return [scenario.mean * each for each in shape(steepness)]


def simulate(scenario: Scenario, outage: bool) -> list[Minute]:
    """The queue before the GPUs, minute by minute for two days; in an outage half of them are away from the first
    peak on."""
    arrivals = day(scenario) * 2
    top = arrivals.index(max(arrivals))
    backlog = 0.0
    minutes: list[Minute] = []
    for minute, arrive in enumerate(arrivals):
        away = outage and top <= minute < top + scenario.outage_minutes
        there = 0.5 if away else 1.0
        end = min(scenario.gpu_rate * there, arrive + backlog / 60)
        backlog = max(0.0, backlog + 60 * (arrive - end))
        minutes.append(Minute(minute, arrive, end, backlog, batch(scenario, end, there)))
    return minutes


def gone_after(minutes: list[Minute]) -> int:
    """Minutes from the first job that waits to none."""
    waiting = [each.minute for each in minutes if each.backlog > 1]
    return waiting[-1] - waiting[0] + 1 if waiting else 0


def report(costs: Costs, scenario: Scenario) -> str:
    return "\n".join(
        [*_load(scenario), "", *_parts(costs, scenario), "", *_job(costs, scenario), "", *_queue(costs, scenario)]
    )


def _load(scenario: Scenario) -> Iterator[str]:
    top = scenario.peak * scenario.mean
    yield (
        f"{scenario.jobs_a_day / 1e6:,.0f} million jobs a day: {scenario.mean:,.0f} a second on average,"
        f" {top:,.0f} at the peak; {scenario.gpus:,} GPUs at {scenario.gpu_seconds * 1000:.0f} ms a job,"
        f" {top / scenario.gpu_rate:.0%} busy at the peak,"
    )
    yield (
        f"batches of {batch(scenario, top):.1f}; {scenario.waits:g} long poll and {scenario.reads:g} status call a job,"
        f" {scenario.blobs:.0%} of them with blobs"
    )


def _parts(costs: Costs, scenario: Scenario) -> Iterator[str]:
    top = scenario.peak * scenario.mean
    all_parts = parts(costs, scenario)
    yield f"One of each, filled to {FILLED:.0%}, and how many the peak takes:"
    yield f"{'':24}{'carries, jobs/s':>16}{'needed':>8}   split"
    for part in sorted(all_parts, key=Part.carries):
        # A process's flushes depend on its own rate: so many processes as carry the whole.
        needed = math.ceil(top / part.carries()) if part.name == "API process" else part.needed(top)
        carries = part.carries()
        shown = "any" if carries > MOST / 2 else f"{carries:,.0f}" if carries else "too many already"
        yield f"{part.name:24}{shown:>16}{needed:>8,}   {part.split}"
    growing = [part for part in all_parts if 0 < part.carries() < MOST / 2]
    first = min(growing, key=Part.carries)
    yield f"The first to be full as the load grows: {first.name}, at {first.carries():,.0f} jobs/s"
    single = min((part for part in growing if part is not all_parts[0]), key=Part.carries)
    yield (
        f"The first that is not split by starting one more: {single.name}, at {single.carries():,.0f} jobs/s,"
        f" {single.carries() * 86_400 / scenario.peak / 1e6:,.0f} million a day with this peak"
    )


def _job(costs: Costs, scenario: Scenario) -> Iterator[str]:
    group, size = max(1.0, parts(costs, scenario)[0].carries() * scenario.flush_seconds), batch(scenario, scenario.mean)
    yield f"A job costs, in flushes of {group:.1f} and batches of {size:.1f}:"
    for part in ("api", "postgres", "valkey", "worker"):
        # The API has no part in a run but the long poll that waits for it: nobody shares that.
        ran = scenario.waits * costs["api run alone"] if part == "api" else costs.cost(part, "run").of(size)
        submit, read = costs.cost(part, "submit").of(group), scenario.reads * costs[f"{part} read together"]
        split = f"submit {submit:,.0f}, run {ran:,.0f}, read {read:,.0f}"
        yield f"{part:12}{submit + ran + read:10,.0f} us of CPU: {split}"
    wal = costs.cost("wal", "submit").of(group) + costs.cost("wal", "run").of(size)
    inline = (1 - scenario.blobs) * scenario.inline_bytes
    table = costs["table bytes"] + inline
    yield f"{'WAL':12}{wal + inline:10,.0f} bytes, {(wal + inline) * scenario.jobs_a_day / 1e12:,.2f} TB a day"
    kept = table * scenario.jobs_a_day * scenario.retention_days
    yield f"{'tables':12}{table:10,.0f} bytes, {kept / 1e12:,.2f} TB in {scenario.retention_days:g} days"


def _queue(costs: Costs, scenario: Scenario) -> Iterator[str]:
    usual, outage = simulate(scenario, outage=False), simulate(scenario, outage=True)
    yield f"Simulated, a usual day: at most {max(each.backlog for each in usual):,.0f} jobs wait"
    most = max(each.backlog for each in outage)
    yield (
        f"Simulated, half of the GPUs away for {scenario.outage_minutes} minutes from the peak on:"
        f" {most / 1e6:,.1f} million jobs wait, {most * costs['redis bytes queued'] / 1e9:,.2f} GB of Redis;"
    )
    yield f"all done after {gone_after(outage)} minutes; the last to come waits {most / scenario.gpu_rate / 60:,.0f}"
    slower = simulate(replace(scenario, gpus=scenario.gpus // 2), outage=False)
    yield (
        f"Simulated, half of the GPUs for good: {max(each.backlog for each in slower) / 1e6:,.1f} million jobs wait"
        f" at most, and {'none' if slower[MINUTES - 1].backlog < 1 else 'some still'} at midnight"
    )


def main() -> None:
    from bench.report import RESULTS, Result

    print(report(Costs(Result.read(RESULTS / "costs.json").figures), Scenario()))


if __name__ == "__main__":
    main()
