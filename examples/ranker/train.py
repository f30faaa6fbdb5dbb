"""`python -m examples.ranker.train`: make readers and clicks, train the towers on them, write weights.safetensors."""

import random

import torch
from safetensors.torch import save_model

from examples.ranker import WEIGHTS, Towers

TOPICS = {
    "cooking": "bread sourdough oven cast iron pot recipe soup garlic knife dinner pasta kitchen bake flour roast",
    "football": "goals season league match striker coach penalty cup keeper transfer derby defender stadium pitch",
    "space": "rocket orbit moon mars telescope launch galaxy star astronaut probe comet planet satellite nebula",
    "money": "stocks market bank interest rates budget tax saving pension inflation bond loan fund economy",
    "garden": "roses tomato soil compost seeds lawn hedge pruning bulbs greenhouse weeds mulch orchard bees",
    "music": "album guitar concert band drummer vinyl chord festival singer jazz melody piano tour record",
}
FILLER = [
    "the",
    "a",
    "for",
    "in",
    "of",
    "how",
    "ten",
    "best",
    "why",
    "new",
    "guide",
    "to",
    "your",
    "with",
    "and",
    "beginners",
    "year",
    "great",
    "this",
]


def title(topic: str, chance: random.Random) -> str:
    words = chance.sample(TOPICS[topic].split(), 3) + chance.sample(FILLER, 2)
    chance.shuffle(words)
    return " ".join(words).capitalize()


def reader(chance: random.Random) -> tuple[list[str], list[str], int]:
    """A user of one or two topics: what they liked, what they are shown, and which of it they click."""
    likes = chance.sample(sorted(TOPICS), chance.choice((1, 2)))
    others = chance.sample([topic for topic in sorted(TOPICS) if topic not in likes], 4)
    shown = [*others, chance.choice(likes)]
    order = chance.sample(range(5), 5)
    history = [title(chance.choice(likes), chance) for _ in range(4)]
    return history, [title(shown[index], chance) for index in order], order.index(4)


def train(steps: int = 400) -> Towers:
    torch.manual_seed(1)
    chance = random.Random(1)
    towers = Towers()
    optimizer = torch.optim.AdamW(towers.parameters(), lr=1e-2)
    for step in range(steps):
        readers = [reader(chance) for _ in range(64)]
        scores = torch.stack(towers([one[0] for one in readers], [one[1] for one in readers]))
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor([one[2] for one in readers]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step:4d}: loss {loss.item():.3f}")
    return towers


@torch.inference_mode()
def hit_rate(towers: Towers, seed: int, count: int = 500) -> float:
    """How often the title that a new reader clicks is ranked first of five."""
    chance = random.Random(seed)
    readers = [reader(chance) for _ in range(count)]
    scores = towers([one[0] for one in readers], [one[1] for one in readers])
    return sum(int(each.argmax()) == one[2] for each, one in zip(scores, readers, strict=True)) / count


if __name__ == "__main__":
    trained = train()
    save_model(trained, str(WEIGHTS))
    print(f"the clicked title of new readers is first of five in {hit_rate(trained, seed=2):.0%}; wrote {WEIGHTS.name}")
