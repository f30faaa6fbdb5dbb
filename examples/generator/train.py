"""`python -m examples.generator.train`: make sentences by a grammar, train on them, write weights.safetensors, print
how many of the sentences that the network writes are right."""

import random
import re

import torch
from safetensors.torch import save_model

from examples.generator import LETTERS, WEIGHTS, Generator, Network, Prompt, numbers
from tundish.testing import run

DETERMINERS = ("the", "every", "some")
ADJECTIVES = ("old", "young", "patient", "careful", "bright", "heavy", "cold", "quiet")
PEOPLE = ("smith", "founder", "moulder", "miller", "porter", "clerk", "apprentice")
THINGS = ("ladle", "mould", "furnace", "casting", "bucket", "crane", "ledger", "lantern")
VERBS = ("lifts", "fills", "carries", "cleans", "watches", "mends", "counts", "turns")
PLACES = ("in the yard", "at the gate", "by the river", "under the roof", "near the door")
TIMES = ("before noon", "after dark", "in winter", "all day", "at once", "every morning")

STEPS, ROWS, LENGTH = 1500, 64, 96


def sentence(chance: random.Random) -> str:
    """Who does what, and where or when."""
    adjective = f"{chance.choice(ADJECTIVES)} " if chance.random() < 0.6 else ""
    who = f"{chance.choice(DETERMINERS)} {adjective}{chance.choice(PEOPLE)}"
    adjective = f"{chance.choice(ADJECTIVES)} " if chance.random() < 0.4 else ""
    what = f"{chance.choice(VERBS)} the {adjective}{chance.choice(THINGS)}"
    return f"{who} {what} {chance.choice(chance.choice((PLACES, TIMES)))}."


def grammar() -> "re.Pattern[str]":
    """What `sentence` can make."""
    one_of = "|".join
    adjective = rf"(?:(?:{one_of(ADJECTIVES)}) )?"
    who = rf"(?:{one_of(DETERMINERS)}) {adjective}(?:{one_of(PEOPLE)})"
    return re.compile(rf"{who} (?:{one_of(VERBS)}) the {adjective}(?:{one_of(THINGS)}) (?:{one_of(PLACES + TIMES)})\.")


def train(steps: int = STEPS) -> Network:
    torch.manual_seed(1)
    chance = random.Random(1)
    text = torch.tensor(numbers("".join(f"\n{sentence(chance)}" for _ in range(20_000))))
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        starts = torch.randint(len(text) - LENGTH - 1, (ROWS, 1))
        rows = text[starts + torch.arange(LENGTH + 1)]
        scores, _ = network(rows[:, :-1])
        loss = torch.nn.functional.cross_entropy(scores.reshape(-1, len(LETTERS)), rows[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step:5d}: loss {loss.item():.4f}", flush=True)
    return network


def right(seed: int, prompts: int = 8, length: int = 600) -> float:
    """The share of the whole sentences that the network writes which its grammar could have made."""
    answers = run(Generator, [Prompt(length=length, seed=seed + each) for each in range(prompts)])
    lines = [line for answer in answers for line in answer.text.split("\n")[:-1]]  # type: ignore[union-attr]
    return sum(bool(grammar().fullmatch(line)) for line in lines) / len(lines)


if __name__ == "__main__":
    save_model(train(), str(WEIGHTS))
    print(f"sentences that are right: {right(seed=2):.1%}; wrote {WEIGHTS.name}")
