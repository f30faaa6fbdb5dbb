"""The examples' models, run by the same code as a worker."""

import math

import pytest

from examples.eta import Arrival, Trip
from examples.eta.train import errors
from examples.generator import Continuation, Generator, Prompt
from examples.generator.train import right
from examples.minilm import Embed, Text, Vector
from examples.ranker import Feed, Rank
from examples.ranker.train import hit_rate
from tundish import Reject
from tundish.testing import Recorder, run


def vectors(*texts: str) -> list[list[float]]:
    results = run(Embed, [Text(text) for text in texts])
    return [each.values for each in results if isinstance(each, Vector)]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_embeddings_are_those_of_the_published_model() -> None:
    # The first numbers as sentence-transformers 6.2.0 gives them.
    first, long = vectors("Where is the package that I ordered?", "x " * 600)
    assert first[:6] == pytest.approx([-0.052369, 0.081628, -0.005234, 0.05203, 0.037582, 0.035669], abs=1e-5)
    assert long[:6] == pytest.approx([-0.002061, -0.037469, -0.031494, -0.042564, -0.100168, -0.082647], abs=1e-5)
    assert math.isclose(dot(first, first), 1.0, abs_tol=1e-5)


def test_an_embedding_does_not_depend_on_its_company() -> None:
    [alone] = vectors("A cat.")
    together = vectors("A cat.", "A very much longer sentence about something else altogether, with many words.")[0]
    assert alone == pytest.approx(together, abs=1e-5)


def test_arrival_times_beat_the_distance_alone() -> None:
    model = Arrival()
    model.load("cpu")
    ours, simple = errors(model.network, seed=11)
    assert ours < 0.08
    assert ours < simple / 2


def test_a_trip_that_cannot_be_is_rejected_alone() -> None:
    good = Trip(7.5, 8, 0, True, 1)
    results = run(Arrival, [good, Trip(-1.0, 8, 0, True, 1), Trip(1.0, 25, 0, True, 1)])
    assert [isinstance(each, Reject) for each in results] == [False, True, True]


def test_the_ranker_puts_first_what_a_reader_likes() -> None:
    model = Rank()
    model.load("cpu")
    assert hit_rate(model.towers, seed=11) > 0.9


def test_a_feed_with_nothing_in_it_is_rejected_alone() -> None:
    results = run(
        Rank, [Feed([], ["a"]), Feed(["Bread and soup"], ["Rocket launch", "Roast garlic soup"]), Feed(["a"], [])]
    )
    assert [isinstance(each, Reject) for each in results] == [True, False, True]
    assert results[1].titles[0] == "Roast garlic soup"  # type: ignore[union-attr]


def test_the_generator_writes_sentences_that_its_grammar_allows() -> None:
    assert right(seed=11, prompts=4, length=300) > 0.95


def test_the_generator_streams_each_letter_and_lets_go_of_who_is_cancelled() -> None:
    recorder = Recorder()
    recorder.cancel = {2}
    prompts = [Prompt("the old smith ", 40), Prompt("NO", 40), Prompt("every ", 60), Prompt("some ", 80, 0.0)]
    results = run(Generator, prompts, reporter=recorder)
    first, rejected, canceled, last = results
    assert isinstance(first, Continuation)
    assert isinstance(last, Continuation)
    assert (len(first.text), len(last.text)) == (40, 80)
    assert (rejected, canceled) == (
        Reject("text has 'N': it is of small letters, spaces, full stops and line ends"),
        Reject("canceled"),
    )
    for index, text in ((0, first.text), (3, last.text)):
        assert "".join(piece for at, piece in recorder.emitted if at == index) == text
    assert sum(at == 2 for at, _ in recorder.emitted) == 1
    assert [fraction for at, fraction in recorder.progressed if at == 0] == [0.5, 1.0]


def test_a_text_does_not_depend_on_its_company() -> None:
    alone = run(Generator, [Prompt("the ", 50, seed=3)])
    together = run(Generator, [Prompt("every young ", 90), Prompt("the ", 50, seed=3), Prompt("", 10)])
    assert alone[0] == together[1]
