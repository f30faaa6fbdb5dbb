"""Text, letter by letter: a small recurrent network goes on with what a prompt begins, and streams as it writes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_model

from tundish import Batch, Model, Reject

WEIGHTS = Path(__file__).parent / "weights.safetensors"
#: What the network reads and writes.
LETTERS = "\n abcdefghijklmnopqrstuvwxyz."
HIDDEN = 128
#: Letters of one answer at most.
LONGEST = 20_000
#: Letters between two reports of progress.
REPORT = 20


@dataclass
class Prompt:
    text: str = ""
    length: int = 200  # letters to write
    temperature: float = 0.7  # 0 always takes the likeliest letter
    seed: int = 0  # the same prompt and seed give the same text


@dataclass
class Continuation:
    text: str


class Network(torch.nn.Module):
    """A letter and a state to the scores of the next letter and the next state."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = torch.nn.Embedding(len(LETTERS), 24)
        self.cell = torch.nn.GRU(24, HIDDEN, batch_first=True)
        self.scores = torch.nn.Linear(HIDDEN, len(LETTERS))

    def forward(self, letters: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """`letters` is [batch, time]; scores are [batch, time, len(LETTERS)], the state [1, batch, HIDDEN]."""
        states, last = self.cell(self.letters(letters), state)
        return self.scores(states), last


def numbers(text: str) -> list[int]:
    return [LETTERS.index(letter) for letter in text]


class Generator(Model[Prompt, Continuation]):
    name = "generator"
    version = "1"
    max_batch = 16
    example = Prompt(text="the old smith ", length=200)

    def load(self, device: str) -> None:
        self.device = device
        self.network = Network().to(device).eval()
        load_model(self.network, WEIGHTS, device=device)

    @torch.inference_mode()
    def predict(self, batch: Batch[Prompt]) -> list[Continuation | Reject]:
        results: list[Continuation | Reject] = [Reject(fault(prompt) or "") for prompt in batch]
        open_ = [index for index, prompt in enumerate(batch) if not fault(prompt)]
        written: dict[int, list[str]] = {index: [] for index in open_}
        # A state for each item, by its place in `open_`; the prompts differ in length, so each is read alone.
        read = [self.network(torch.tensor([numbers("\n" + batch[index].text)], device=self.device)) for index in open_]
        chances = [torch.Generator().manual_seed(batch[index].seed) for index in open_]
        if open_:
            scores = torch.cat([each[:, -1] for each, _ in read])
            state = torch.cat([each for _, each in read], dim=1)
        while open_:
            letters = pick(scores, [batch[index].temperature for index in open_], chances)
            kept = []
            for place, index in enumerate(open_):
                text = written[index]
                text.append(LETTERS[letters[place]])
                batch.emit(index, text[-1])
                if len(text) % REPORT == 0:
                    batch.progress(index, len(text) / batch[index].length)
                if len(text) < batch[index].length and not batch.canceled(index):
                    kept.append(place)
            for index in {*open_} - {open_[place] for place in kept}:
                results[index] = Continuation("".join(written[index]))
            open_, chances = [open_[place] for place in kept], [chances[place] for place in kept]
            if open_:
                last = torch.tensor([[letters[place]] for place in kept], device=self.device)
                scores, state = self.network(last, state[:, kept].contiguous())
                scores = scores[:, -1]
        return results


def pick(scores: torch.Tensor, temperatures: list[float], chances: list[torch.Generator]) -> list[int]:
    """The next letter of each row, by Gumbel's trick: the largest score after noise is a draw by their softmax."""
    noise = torch.stack([-torch.log(-torch.log(torch.rand(len(LETTERS), generator=each))) for each in chances])
    warmth = torch.tensor(temperatures).unsqueeze(1)
    picked: list[int] = (scores.cpu() + warmth * noise).argmax(1).tolist()
    return picked


def fault(prompt: Prompt) -> str | None:
    """Why nothing can be written after a prompt."""
    if strange := set(prompt.text) - set(LETTERS):
        return f"text has {min(strange)!r}: it is of small letters, spaces, full stops and line ends"
    if not 1 <= prompt.length <= LONGEST:
        return f"length is from 1 to {LONGEST}"
    if not 0 <= prompt.temperature <= 2:
        return "temperature is from 0 to 2"
    return None
