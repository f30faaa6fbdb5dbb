"""real: sentence embeddings by MiniLM, from HTTP to the stored result; beside the raw loop with the same batches. And
sentences of mixed length, beside the same model without a `max_cost`."""

import json
import math
import os
import random

from bench import raw
from bench.measure import compare
from bench.plan import Plan
from bench.report import write
from bench.system import started

MODEL = "examples.minilm:Embed"

_WORDS = (
    "steel ladle mould pour night shift customer parcel delay invoice driver route city rain playlist song"
    " evening ticket refund market rate garden window kitchen recipe signal model batch queue worker answer"
).split()


def sentences(count: int) -> list[str]:
    """Of 4 to 24 words, the same each time."""
    chance = random.Random(5)
    return [" ".join(chance.choices(_WORDS, k=chance.randint(4, 24))) for _ in range(count)]


def mixed(count: int) -> list[str]:
    """Of 3 to 240 words, most of them short: their logarithm is normal."""
    chance = random.Random(5)
    lengths = [min(240, max(3, round(math.exp(chance.gauss(3.0, 0.9))))) for _ in range(count)]
    return [" ".join(chance.choices(_WORDS, k=length)) for length in lengths]


def bodies(count: int) -> list[bytes]:
    return [json.dumps({"text": each}).encode() for each in sentences(count)]


def embed(model: str, name: str, texts: list[str], workers: int = 1) -> float:
    """Sentences a second, from the first submit to the last stored result."""
    with started(model) as bench:
        bench.start_workers(workers)
        bench.wait_for_workers(workers)
        began = bench.now()
        bench.submit(name, [{"text": each} for each in texts])
        return len(texts) / (bench.wait_for_all(len(texts)) - began)


def main(plan: Plan) -> None:
    count, mixed_count, workers = plan.of(8_192, 128), plan.of(512, 64), os.cpu_count() or 1
    row = compare(
        f"MiniLM, 4 to 24 words, {workers} workers",
        "sentences/s",
        lambda: embed(MODEL, "minilm", sentences(count), workers),
        {"raw loop": lambda: raw.rate(MODEL, "bench.real:bodies", count)},
        runs=plan.runs,
        reach={"raw loop": 0.90},
        moonshot={"raw loop": 0.97},
    )
    by_cost = compare(
        "MiniLM, 3 to 240 words",
        "sentences/s",
        lambda: embed(MODEL, "minilm", mixed(mixed_count)),
        {"without max_cost": lambda: embed("bench.minilm:EmbedInOrder", "minilm-in-order", mixed(mixed_count))},
        runs=plan.runs,
    )
    write("real", plan, [row, by_cost])
