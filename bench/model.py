"""model: a network 2,048 wide on the CPU in batches of 64, drained; beside the raw torch loop in one process."""

import subprocess
import sys

from bench.report import compare, write
from bench.system import started
from local.supervise import TREE

JOBS = 30_000
RUNS = 3

_RAW = """
import json, time
from bench.model import JOBS, inputs
from bench.mlp import Mlp
from tundish.codec import codec_for
from tundish.model import Batch, types_of
from tundish.testing import Recorder
reads, writes = map(codec_for, types_of(Mlp))
model = Mlp()
model.load("cpu")
bodies = [json.dumps(each).encode() for each in inputs(JOBS)]
size, recorder = Mlp.max_batch, Recorder()
model.predict(Batch([reads.decode(body) for body in bodies[:size]], recorder, range(size)))
began = time.monotonic()
for at in range(0, len(bodies), size):
    items = [reads.decode(body) for body in bodies[at:at + size]]
    outputs = [writes.encode(each) for each in model.predict(Batch(items, recorder, range(len(items))))]
print(len(bodies) / (time.monotonic() - began))
"""


def inputs(count: int) -> list[list[float]]:
    return [[(number + place) % 97 / 97 for place in range(16)] for number in range(count)]


def tundish() -> float:
    """Jobs a second, from the start of the first batch to the last stored result."""
    with started("bench.mlp:Mlp") as bench:
        bench.submit("mlp", inputs(JOBS))
        bench.start_worker()
        ended = bench.wait_for_all(JOBS)
        return JOBS / (ended - bench.first_claim())


def raw_loop() -> float:
    """The same model and batches in one process: decode, predict, encode; nothing stored."""
    command = [sys.executable, "-c", _RAW]
    return float(subprocess.run(command, cwd=TREE, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    row = compare(
        "MLP of 2,048",
        "jobs/s",
        tundish,
        {"raw loop": raw_loop},
        runs=RUNS,
        reach={"raw loop": 0.83},
        moonshot={"raw loop": 0.95},
    )
    write("model", [row])
