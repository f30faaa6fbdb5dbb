"""real: sentence embeddings by MiniLM, from HTTP to the stored result; beside the raw loop with the same batches."""

import random
import subprocess
import sys
import time

from bench.report import compare, write
from bench.system import started
from local.supervise import TREE

SENTENCES = 4_096
RUNS = 3

_WORDS = (
    "steel ladle mould pour night shift customer parcel delay invoice driver route city rain playlist song"
    " evening ticket refund market rate garden window kitchen recipe signal model batch queue worker answer"
).split()


def sentences(count: int = SENTENCES) -> list[str]:
    """Of 4 to 24 words, the same each time."""
    chance = random.Random(5)
    return [" ".join(chance.choices(_WORDS, k=chance.randint(4, 24))) for _ in range(count)]


def tundish() -> float:
    """Sentences a second, from the first submit to the last stored result."""
    with started("examples.minilm:Embed") as bench:
        bench.start_worker()
        while not bench.serving():
            time.sleep(0.05)
        texts = [{"text": each} for each in sentences()]
        began = time.time()
        bench.submit("minilm", texts)
        return SENTENCES / (bench.wait_for_all(SENTENCES) - began)


_RAW = """
import json, time
from bench.real import sentences
from examples.minilm import Embed
from tundish.codec import codec_for
from tundish.model import Batch, types_of
from tundish.testing import Recorder
reads, writes = map(codec_for, types_of(Embed))
model = Embed()
model.load("cpu")
bodies = [json.dumps({"text": each}).encode() for each in sentences()]
size, recorder = Embed.max_batch, Recorder()
model.predict(Batch([reads.decode(body) for body in bodies[:size]], recorder, range(size)))
began = time.monotonic()
for at in range(0, len(bodies), size):
    items = [reads.decode(body) for body in bodies[at:at + size]]
    outputs = [writes.encode(each) for each in model.predict(Batch(items, recorder, range(len(items))))]
print(len(bodies) / (time.monotonic() - began))
"""


def raw_loop() -> float:
    """The same model and batches in one process: decode, predict, encode; nothing stored."""
    command = [sys.executable, "-c", _RAW]
    return float(subprocess.run(command, cwd=TREE, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    row = compare(
        "MiniLM, 4 to 24 words",
        "sentences/s",
        tundish,
        {"raw loop": raw_loop},
        runs=RUNS,
        reach={"raw loop": 0.90},
        moonshot={"raw loop": 0.97},
    )
    write("real", [row])
