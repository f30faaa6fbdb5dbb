"""gpu: MiniLM and a ResNet-50-sized net in half precision on one GPU, from the first claim to the last stored result;
beside the raw loop with the same batches. Without a GPU the same path runs on the CPU, and nothing is measured."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import mean

from bench import convnet, gpus, load, raw, real
from bench.connection import request
from bench.measure import Row, measure, row
from bench.plan import Plan
from bench.plot import Curve
from bench.report import write
from bench.system import Bench, started

RAW = "raw loop"
#: Jobs before those that are measured, as the raw loop has them: kernels are chosen, memory is taken.
WARM = 1_024
REACH, MOONSHOT = 0.90, 0.98


@dataclass
class Case:
    """A model, and how its jobs are submitted; `busy` gets the device's percent over the seconds of our last run."""

    name: str
    unit: str
    model: str
    bodies: str
    submit: Callable[[Bench, int], None]
    full: int
    small: int
    busy: list[tuple[float, float]] = field(default_factory=list)
    mean_busy: float = 0.0

    def tundish(self, count: int, device: str) -> float:
        """Items a second."""
        warm = min(count, WARM)
        with started(self.model, TUNDISH_DEVICE=device) as bench:
            self.submit(bench, warm)
            bench.start_worker()
            bench.wait_for_all(warm)
            with bench.workers_stopped():
                self.submit(bench, count)
                began = bench.now()
            with gpus.watched() as self.busy:
                ended = bench.wait_for_all(warm + count)
            first = bench.first_claim(began)
        during = [percent for at, percent in self.busy if first - began <= at <= ended - began]
        self.mean_busy = mean(during) if during else 0.0
        return count / (ended - first)

    def raw(self, count: int, device: str) -> float:
        return raw.rate(self.model, self.bodies, count, device)

    @property
    def curve(self) -> Curve:
        return Curve(
            name=f"gpu-{self.name.partition(' ')[0].lower()}",
            title=f"{self.name}: how busy the device is",
            x_label="seconds since the worker could begin",
            y_label="percent",
            x=[at for at, _ in self.busy],
            series={"Tundish": [percent for _, percent in self.busy]},
        )


def submit_sentences(bench: Bench, count: int) -> None:
    bench.submit("minilm-half", [{"text": each} for each in real.sentences(count)])


def submit_images(bench: Bench, count: int) -> None:
    """Each by itself: the body is the image."""
    requests = [
        request("POST", "/v1/models/convnet/jobs", bench.system.api.key, body, "application/x-npy")
        for body in convnet.bodies(min(count, 64))
    ]
    order = load.Order(
        bench.system.settings.port, load.requests(requests), connections=min(count, 16), count=count, keep=True
    )
    bench.accepted(load.ids(load.run(order, 202)))


def cases() -> list[Case]:
    return [
        Case(
            *("MiniLM, text in, npy out", "sentences/s", "bench.minilm:EmbedHalf", "bench.real:bodies"),
            *(submit_sentences, 100_000, 256),
        ),
        Case(
            *("ResNet-50-sized net, npy in, npy out", "images/s", "bench.convnet:Convnet", "bench.convnet:bodies"),
            *(submit_images, 16_384, 4),
        ),
    ]


def measured(case: Case, runs: int, count: int) -> Row:
    """On the GPU."""
    ran = measure(
        case.name,
        lambda: case.tundish(count, "cuda:0"),
        {RAW: lambda: case.raw(count, "cuda:0")},
        runs,
        lambda rate: f"{rate:,.0f} {case.unit}, the device {case.mean_busy:.0f} % busy in our last run",
    )
    note = f"the device was {case.mean_busy:.0f} % busy on average"
    return row(case.name, case.unit, ran, reach={RAW: REACH}, moonshot={RAW: MOONSHOT}, note=note)


def tried(case: Case) -> Row:
    """On the CPU, by the same path: a row without figures."""
    rates = case.tundish(case.small, "cpu"), case.raw(case.small, "cpu")
    print(f"  {case.name}: {case.small} went through a worker and through the raw loop", flush=True)
    assert all(rate > 0 for rate in rates)
    return Row(
        case=case.name,
        unit=case.unit,
        ours=None,
        peers={RAW: None},
        ratio={RAW: None},
        runs=0,
        spread=0.0,
        better="higher",
        reach={RAW: REACH},
        moonshot={RAW: MOONSHOT},
        note="not measured: there is no GPU here; the CPU took the same path",
    )


def main(plan: Plan) -> None:
    all_cases = cases()
    if not gpus.there():
        write("gpu", plan, [tried(case) for case in all_cases])
        return
    rows = [measured(case, plan.runs, plan.of(case.full, 10 * case.small)) for case in all_cases]
    write("gpu", plan, rows, curves=[case.curve for case in all_cases])
