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


class Draft:
    """An item that is being written."""

    def __init__(self, index: int, prompt: Prompt) -> None:
        self.index = index
        self.prompt = prompt
        self.chance = torch.Generator().manual_seed(prompt.seed)
        self.text = ""

    @property
    def done(self) -> float:
        return len(self.text) / self.prompt.length


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
        drafts = [Draft(index, prompt) for index, prompt in enumerate(batch) if not fault(prompt)]
        self._write(batch, drafts)
        texts = {draft.index: draft.text for draft in drafts}
        return [
            Continuation(texts[index]) if index in texts else Reject(fault(prompt) or "")
            for index, prompt in enumerate(batch)
        ]

    def _write(self, batch: Batch[Prompt], drafts: list[Draft]) -> None:
        """Letter by letter, all at once; who is done or cancelled leaves the others."""
        if drafts:
            # Prompts differ in length, so each is read alone.
            read = [self._step([numbers("\n" + draft.prompt.text)]) for draft in drafts]
            scores, state = (torch.cat(parts, dim) for parts, dim in zip(zip(*read, strict=True), (0, 1), strict=True))
        while drafts:
            letters = pick(scores, drafts)
            for draft, letter in zip(drafts, letters, strict=True):
                draft.text += LETTERS[letter]
                batch.emit(draft.index, LETTERS[letter])
                if len(draft.text) % REPORT == 0:
                    batch.progress(draft.index, draft.done)
            going = [at for at, draft in enumerate(drafts) if draft.done < 1 and not batch.canceled(draft.index)]
            drafts = [drafts[at] for at in going]
            if drafts:
                scores, state = self._step([[letters[at]] for at in going], state[:, going].contiguous())

    def _step(self, letters: list[list[int]], state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The scores of what follows the last letter of each row, and the state after it."""
        scores, state = self.network(torch.tensor(letters, device=self.device), state)
        return scores[:, -1], state


def pick(scores: torch.Tensor, drafts: list[Draft]) -> list[int]:
    """The next letter of each row, by Gumbel's trick: the largest score after noise is a draw by their softmax."""
    chances = torch.stack([torch.rand(len(LETTERS), generator=draft.chance) for draft in drafts]).clamp_min(1e-9)
    warmth = torch.tensor([[draft.prompt.temperature] for draft in drafts])
    picked: list[int] = (scores.cpu() - warmth * torch.log(-torch.log(chances))).argmax(1).tolist()
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
