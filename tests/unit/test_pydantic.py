"""Models on pydantic: what a caller is told, and that outputs are as their schema says."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, Field, RootModel, field_serializer, field_validator

from tundish import Batch, Model, Reject
from tundish.codec import Codec, DecodeError, EncodeError, codec_for
from tundish.model import DefinitionError
from tundish.testing import run


class Word(BaseModel):
    text: str = Field(min_length=1)
    at: datetime | None = None

    @field_validator("text")
    @classmethod
    def lower(cls, text: str) -> str:
        if not text.islower():
            raise ValueError("not in lower case")
        return text


class Line(BaseModel):
    words: list[Word]
    a_b: int | list[int] = Field(default=0, alias="a/b")


@pytest.fixture
def lines() -> Codec:
    return codec_for(Line)


def test_there_and_back(lines: Codec) -> None:
    line = lines.decode(b'{"words": [{"text": "a", "at": "2026-11-30T00:00:00Z"}], "a/b": 3}')
    assert line == Line(words=[Word(text="a", at=datetime(2026, 11, 30, tzinfo=UTC))], **{"a/b": 3})
    assert lines.decode(lines.encode(line)) == line


def test_the_schema_names_what_is_written_and_takes_nothing_else(lines: Codec) -> None:
    schema: Any = lines.schema()
    assert set(schema["properties"]) == {"words", "a/b"}
    assert [each["additionalProperties"] for each in (schema, schema["$defs"]["Word"])] == [False, False]
    assert schema["properties"]["a/b"]["anyOf"][0]["maximum"] == 2**63 - 1


@pytest.mark.parametrize(
    ("body", "message", "pointer"),
    [
        (b'{"words": [{"text": "a"}, {"text": "B"}]}', "Value error, not in lower case", "/words/1/text"),
        (b'{"words": [{"text": ""}]}', "String should have at least 1 character", "/words/0/text"),
        (b'{"words": [{}]}', "Field required", "/words/0"),
        (b'{"words": [], "a/b": "no"}', "Input should be a valid integer", "/a~1b"),
        (b'{"words": [], "a/b": NaN}', "Input should be", "/a~1b"),
        (b"{", "Invalid JSON", ""),
    ],
)
def test_a_fault_is_one_line_and_leads_to_its_place(lines: Codec, body: bytes, message: str, pointer: str) -> None:
    with pytest.raises(DecodeError) as told:
        lines.decode(body)
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value)
    assert told.value.pointer == pointer


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (Word(text="a"), "of type Word, not Line"),
        (Line(words=[Word.model_construct(text="\ud800")]), "surrogates"),
    ],
)
def test_an_output_that_cannot_be_written_is_told(lines: Codec, output: BaseModel, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        lines.encode(output)


def test_an_output_whose_author_cannot_write_it_is_told() -> None:
    class Shy(BaseModel):
        text: str

        @field_serializer("text")
        def hidden(self, text: str) -> str:
            raise ValueError("not for you")

    with pytest.raises(EncodeError, match="not for you"):
        codec_for(Shy).encode(Shy(text="a"))


def test_an_output_that_is_no_number_is_refused() -> None:
    class Numbers(RootModel[list[float]]):
        pass

    numbers = codec_for(Numbers)
    assert numbers.encode(Numbers([0.5])) == b"[0.5]"
    with pytest.raises(EncodeError, match="NaN"):
        numbers.encode(Numbers([0.5, float("nan")]))


def test_a_type_without_a_schema_says_so_at_the_start() -> None:
    class Odd(BaseModel, arbitrary_types_allowed=True):
        codec: Codec

    with pytest.raises(DefinitionError, match="Odd'> cannot be read from JSON: Cannot generate a JsonSchema"):
        codec_for(Odd)


class Count(Model[Line, Word]):
    name = "count"
    version = "1"
    example = Line(words=[Word(text="a")], **{"a/b": 2})

    def load(self, device: str) -> None:
        """Nothing to load."""

    def predict(self, batch: Batch[Line]) -> list[Word | Reject]:
        return [line.words[0] if line.words else Reject("no words") for line in batch]


def test_a_model_runs_on_it() -> None:
    assert run(Count, [Line(words=[Word(text="b")])]) == [Word(text="b")]
