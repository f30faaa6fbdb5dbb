"""real: sentence embeddings by MiniLM, from HTTP to the stored result; beside the raw loop with the same batches. And
sentences of mixed length, beside the same model without a `max_cost`."""

import math
import random
import subprocess
import sys
import time

from bench.report import compare, write
from bench.system import started
from local.supervise import TREE

SENTENCES = 4_096
MIXED = 1_024
RUNS = 3

_WORDS = (
    "steel ladle mould pour night shift customer parcel delay invoice driver route city rain playlist song"
    " evening ticket refund market rate garden window kitchen recipe signal model batch queue worker answer"
).split()


def sentences(count: int = SENTENCES) -> list[str]:
    """Of 4 to 24 words, the same each time."""
    chance = random.Random(5)
    return [" ".join(chance.choices(_WORDS, k=chance.randint(4, 24))) for _ in range(count)]


def mixed(count: int = MIXED) -> list[str]:
    """Of 3 to 240 words, most of them short: their logarithm is normal."""
    chance = random.Random(5)
    lengths = [min(240, max(3, round(math.exp(chance.gauss(3.0, 0.9))))) for _ in range(count)]
    return [" ".join(chance.choices(_WORDS, k=length)) for length in lengths]


def embed(model: str, name: str, texts: list[str]) -> float:
    """Sentences a second, from the first submit to the last stored result."""
    with started(model) as bench:
        bench.start_worker()
        while not bench.serving():
            time.sleep(0.05)
        began = time.time()
        bench.submit(name, [{"text": each} for each in texts])
        return len(texts) / (bench.wait_for_all(len(texts)) - began)


_RAW = """
import json, time
from bench.real import sentences
from examples.minilm import Embed
from tundish.codec import codec_for
from tundish.execute import parts
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
    for part in parts({place: model.cost(item) for place, item in enumerate(items)}, Embed.max_cost):
        results = model.predict(Batch([items[place] for place in part], recorder, part))
        outputs = [writes.encode(each) for each in results]
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
        lambda: embed("examples.minilm:Embed", "minilm", sentences()),
        {"raw loop": raw_loop},
        runs=RUNS,
        reach={"raw loop": 0.90},
        moonshot={"raw loop": 0.97},
    )
    by_cost = compare(
        "MiniLM, 3 to 240 words",
        "sentences/s",
        lambda: embed("examples.minilm:Embed", "minilm", mixed()),
        {"without max_cost": lambda: embed("bench.minilm:EmbedInOrder", "minilm-in-order", mixed())},
        runs=RUNS,
        reach={},
        moonshot={},
    )
    write("real", [row, by_cost])
