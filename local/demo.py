"""`./dev demo`: real sentences through a real model, from HTTP to the stored result, and a check of what came out."""

import contextlib
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from local.http import Api, free_port
from local.say import Stop, say, step
from local.up import running
from tundish.settings import Settings

#: Each sentence's nearest is the other of its pair.
PAIRS = [
    ("The steel is poured without a pause.", "Molten metal flows into the mould without stopping."),
    ("My parcel has not arrived yet.", "Where is the package that I ordered?"),
    ("The cat sleeps on the warm windowsill.", "A kitten is napping in the sun."),
    ("Interest rates went up again this quarter.", "The central bank has raised borrowing costs."),
]
#: How far a number may be from what the model gives when it is called directly.
TOLERANCE = 1e-4


def main(arguments: list[str]) -> int:
    if arguments:
        say("usage: ./dev demo")
        return 2
    os.environ["TUNDISH_MODELS"] = "examples.minilm:Embed"
    for name in ("DATABASE_URL", "REDIS_URL", "BLOB_URL", "API_KEY", "PUBLIC_URL"):
        os.environ.pop(f"TUNDISH_{name}", None)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tundish-demo-") as folder:
        given = replace(
            Settings.from_environment(), data_dir=Path(folder), host="127.0.0.1", port=free_port(), api_key=""
        )
        try:
            with running(given) as system:
                say(f"Tundish runs at {system.api.url}")
                right = _demonstrate(system.api)
        except Stop as stop:
            say(f"demo: {stop}")
            return 1
    say(f"{'all of it right' if right else 'NOT right'}, {time.monotonic() - began:.1f} s in all")
    return 0 if right else 1


def _demonstrate(api: Api) -> bool:
    sentences = [sentence for pair in PAIRS for sentence in pair]
    with step("predicting"):
        vectors = _predicted(api, sentences)
    say(f"{len(sentences)} sentences submitted to minilm, and what is nearest to each:")
    right = True
    for index, sentence in enumerate(sentences):
        similar = {other: _dot(vectors[index], vectors[other]) for other in range(len(sentences)) if other != index}
        nearest = max(similar, key=lambda other: similar[other])
        right &= nearest == index ^ 1
        verdict = "" if nearest == index ^ 1 else "  WRONG"
        say(f"  {sentence}\n    {similar[nearest]:.3f}  {sentences[nearest]}{verdict}")
    with step("calling the model directly"):
        direct = _direct(sentences)
    pairs = zip(vectors, direct, strict=True)
    error = max(abs(a - b) for got, want in pairs for a, b in zip(got, want, strict=True))
    say(f"largest difference from the model called directly: {error:.1e} (allowed: {TOLERANCE:.0e})")
    return right and error <= TOLERANCE


def _predicted(api: Api, sentences: list[str]) -> list[list[float]]:
    answer = api.post("/v1/jobs:batch", {"model": "minilm", "inputs": [{"text": each} for each in sentences]})
    jobs = [api.get(f"/v1/jobs/{each['id']}?wait=60") for each in answer["data"]]
    failed = [job for job in jobs if job["status"] != "succeeded"]
    if failed:
        raise Stop(f"job {failed[0]['id']} is {failed[0]['status']}: {failed[0]['error']}")
    return [job["output"]["values"] for job in jobs]


def _direct(sentences: list[str]) -> list[list[float]]:
    # Here alone, for it takes its seconds: everything else runs in other processes.
    from examples.minilm import Embed, Text
    from tundish.testing import run

    # Workers speak on standard error; the terminal is for the demonstration.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        outputs: list[Any] = run(Embed, [Text(each) for each in sentences])
    return [output.values for output in outputs]


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
