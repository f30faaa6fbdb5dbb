"""The model SDK: types, codecs, the catalog of models, and running one with no service."""

import re
import subprocess
import sys
from dataclasses import dataclass, make_dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import msgspec
import numpy
import pytest
import torch

from tundish import Batch, DefinitionError, Model, Reject
from tundish.catalog import CatalogError, Served, describe, load_models
from tundish.codec import DecodeError, EncodeError, codec_for
from tundish.model import check, types_of
from tundish.testing import JobFailed, Recorder, run


@dataclass
class Point:
    x: int
    y: float = 0.5


@dataclass
class Shape:
    name: str
    points: list[Point]
    origin: Point | None = None


class Twice(Model[Point, Point]):
    name = "twice"
    version = "1"
    max_batch = 2
    example = Point(1)

    def predict(self, batch: Batch[Point]) -> list[Point | Reject]:
        assert isinstance(batch[0:1], list)
        return [Reject("odd") if point.x % 2 else Point(2 * point.x, point.y) for point in batch]


class Later(Twice):
    version = "2"


@dataclass
class Bounded:
    name: Annotated[str, msgspec.Meta(pattern=r"^a\Z")]


class Strange(Model[Bounded, str]):
    name = "strange"
    version = "1"

    def predict(self, batch: Batch[Bounded]) -> list[str | Reject]:
        return [item.name for item in batch]


def test_importing_tundish_costs_the_standard_library_alone() -> None:
    code = "import sys, tundish; print([m for m in sys.modules if m.partition('.')[0] in"
    code += " ('msgspec', 'torch', 'numpy', 'sqlalchemy', 'celery', 'redis', 'boto3', 'pydantic')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_types_are_found_through_bases() -> None:
    assert types_of(Later) == (Point, Point)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": "Has Spaces"}, "name"),
        ({"version": 1}, "version"),
        ({"max_batch": 0}, "max_batch"),
        ({"max_batch": True}, "max_batch"),
        ({"max_wait": -1}, "max_wait"),
        ({"max_wait": "5 ms"}, "max_wait"),
        ({"max_wait": float("inf")}, "max_wait"),
        ({"timeout": "5"}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"max_cost": 0}, "max_cost"),
        ({"max_cost": True}, "max_cost"),
        ({"artifact": "weights/"}, "artifact"),
        ({"artifact": "sha256:" + "0" * 63}, "artifact"),
    ],
)
def test_a_definition_that_cannot_be_served_says_what_to_change(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=rf"\.{message} is"):
        check(type("Wrong", (Twice,), attributes))


def test_a_type_that_cannot_be_read_is_told_in_a_line_with_its_model() -> None:
    class Vague(Model[str, object]):
        name = "vague"
        version = "1"

        def predict(self, batch: Batch[str]) -> list[object]:
            return list(batch)

    with pytest.raises(DefinitionError) as told:
        describe(Served(Vague))
    why = "<class 'object'> cannot be read from JSON: type <class 'object'> is not supported"
    assert str(told.value).endswith(f"Vague: {why}")
    assert "\n" not in str(told.value)


def test_a_pattern_that_only_python_reads_is_told_with_its_model(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"Strange: the schema of its inputs .*\\Z.*; write patterns as"):
        load_models("tests.unit.test_sdk:Strange", tmp_path)


def test_a_model_must_say_its_types_and_predict() -> None:
    class Untyped(Model):  # type: ignore[type-arg]
        name = version = "1"

        def predict(self, batch: Any) -> Any:
            return batch

    class Idle(Model[int, int]):
        name = version = "1"

    with pytest.raises(DefinitionError, match="must say its types"):
        check(Untyped)
    with pytest.raises(DefinitionError, match="must define predict"):
        check(Idle)  # type: ignore[type-abstract]  # that is the point
    with pytest.raises(DefinitionError, match="is not a subclass"):
        check(int)  # type: ignore[arg-type]


def test_a_model_runs_with_no_service() -> None:
    assert run(Twice, [Point(2), Point(3), Point(4)]) == [Point(4), Reject("odd"), Point(8)]


def test_an_item_that_is_no_input_is_named_as_such() -> None:
    items: list[Any] = [Point(1, 2), {"x": 1}]
    with pytest.raises(EncodeError, match=r"^item 1 is of type dict, not Point$"):
        run(Twice, items)


def test_what_is_said_of_an_item_is_told_by_its_index_among_all() -> None:
    class Talking(Twice):
        def predict(self, batch: Batch[Point]) -> list[Point | Reject]:
            for index, point in enumerate(batch):
                batch.progress(index, 0.5)
                batch.emit(index, point.x)
                batch.log(index, str(point.x))
                batch.canceled(index)
            return super().predict(batch)

    recorder = Recorder()
    recorder.cancel.add(2)
    assert run(Talking, [Point(0), Point(2), Point(4)], reporter=recorder) == [Point(0), Point(4), Reject("canceled")]
    assert recorder.progressed == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert recorder.emitted == [(0, 0), (1, 2), (2, 4)]
    assert recorder.logged == [(0, "0"), (1, "2"), (2, "4")]


def test_a_failure_is_raised_with_its_code() -> None:
    class Broken(Twice):
        def predict(self, batch: Batch[Point]) -> list[Point | Reject]:
            raise RuntimeError("no")

    with pytest.raises(JobFailed, match="item 0: model_error: RuntimeError: no"):
        run(Broken, [Point(1)])


def test_a_schema_is_closed_at_every_level() -> None:
    schema = codec_for(Shape).schema()
    assert schema
    valid = jsonschema_rs.validator_for(schema).is_valid
    assert valid({"name": "a", "points": [{"x": 1}, {"x": 2, "y": 1}]})
    assert not valid({"name": "a", "points": [], "more": 1})
    assert not valid({"name": "a", "points": [{"x": 1, "z": 1}]})
    assert not valid({"name": "a", "points": [], "origin": {"x": 1, "z": 1}})
    assert not valid({"name": "a", "points": [{"x": 2**63}]})
    assert valid({"name": "a", "points": [{"x": 2**63 - 1}, {"x": -(2**63)}]})


def test_a_field_may_have_the_name_of_a_keyword_of_schemas() -> None:
    names = ("default", "const", "enum", "examples", "properties", "additionalProperties")
    schema = codec_for(make_dataclass("Keywords", [(name, int) for name in names])).schema()
    assert schema
    valid = jsonschema_rs.validator_for(schema).is_valid
    assert valid(dict.fromkeys(names, 1))
    for name in names:
        assert not valid(dict.fromkeys(names, 1) | {name: 2**63})
    assert set(schema["$defs"]["Keywords"]["properties"]) == set(names)
    [only] = (codec_for(make_dataclass("One", [("properties", int)])).schema() or {})["$defs"].values()
    assert set(only["properties"]) == {"properties"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_output_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(EncodeError, match=r"NaN or an infinite number at /y$"):
        codec_for(Point).encode(Point(1, value))
    with pytest.raises(EncodeError, match=r"NaN or an infinite number at /a~1b/1$"):
        codec_for(dict[str, list[float]]).encode({"a/b": [1.0, value]})
    with pytest.raises(EncodeError, match=r"NaN or an infinite number$"):
        codec_for(float).encode(value)
    with pytest.raises(EncodeError, match="NaN"):
        codec_for(numpy.ndarray).encode(numpy.array([value]))


@pytest.mark.parametrize("type_", [msgspec.Raw, list[msgspec.Raw], dict[str, tuple[int, msgspec.Raw]]])
def test_json_that_a_model_has_written_itself_is_read_before_it_is_stored(type_: Any) -> None:
    def of(raw: bytes) -> Any:
        given = msgspec.Raw(raw)
        return {msgspec.Raw: given, list[msgspec.Raw]: [given]}.get(type_, {"a": (1, given)})

    assert b'{"x":[1]}' in codec_for(type_).encode(of(b'{"x":[1]}'))
    for broken in (b"{", b"NaN", b'"\xff"'):
        with pytest.raises(EncodeError, match=r"msgspec\.Raw that is not JSON"):
            codec_for(type_).encode(of(broken))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"scores": [0.5, numpy.float32(1)]}, r"type numpy.float32 at /scores/1, which .* JSON; give its tolist\(\)$"),
        ({"scores": torch.ones(2)}, r"type torch.Tensor at /scores, which .* JSON; give its tolist\(\)$"),
        ({"of": Point(1, numpy.zeros(2))}, r"type numpy.ndarray at /of/y, which .* JSON; give its tolist\(\)$"),  # type: ignore[arg-type]  # that is the point
        ({"of": {"a": 1, "b": object()}}, "type object at /of/b, which has no JSON$"),
        ({"of": "\ud800"}, "surrogates"),
        ({(1, 2): 1}, "keys"),
    ],
)
def test_what_has_no_json_is_told_with_its_place(output: dict[Any, Any], message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        codec_for(dict).encode(output)


def test_a_null_in_an_output_is_kept() -> None:
    assert codec_for(Shape).encode(Shape("null", [], None)) == b'{"name":"null","points":[],"origin":null}'


@pytest.mark.parametrize(
    ("type_", "body", "pointer"),
    [
        (Shape, b'{"name": "a", "points": [{"x": 1}, {"x": "1"}]}', "/points/1/x"),
        (list[dict[str, datetime]], b'[{"any key": "no time"}]', "/0"),
        (dict[str, list[int]], b'{"any key": [1, "2"]}', ""),
    ],
)
def test_a_decoding_fault_has_a_pointer(type_: Any, body: bytes, pointer: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec_for(type_).decode(body)
    assert caught.value.pointer == pointer


@dataclass
class Mixed:
    whole: int
    share: float
    any: Any
    kind: Literal[1, 2] = 1


def test_an_integer_may_be_written_as_a_float_and_no_float_becomes_one() -> None:
    mixed = codec_for(Mixed).decode(b'{"whole": 1e2, "share": -0.0, "any": [1.0, -0.0, 1e20, "1", "null"]}')
    assert repr(mixed) == repr(Mixed(100, -0.0, [1.0, -0.0, 1e20, "1", "null"]))
    assert codec_for(Mixed).decode(b'{"whole": 1.0, "share": 1, "any": 1, "kind": 2.0}') == Mixed(1, 1.0, 1, 2)
    assert codec_for(Mixed).decode(b'{"whole": 9223372036854774784.0, "share": 1, "any": 1}').whole == 2**63 - 1024
    for wrong in (b'{"whole": "1", "share": 1, "any": 1}', b'{"whole": 1.0, "share": "1", "any": 1}'):
        with pytest.raises(DecodeError):
            codec_for(Mixed).decode(wrong)


def test_outputs_of_another_type_are_refused() -> None:
    with pytest.raises(EncodeError, match="not "):
        codec_for(Point).encode({"x": 1})
    for other in ({"a": 1}, Point(1)):
        with pytest.raises(EncodeError, match="not Struct"):
            codec_for(Struct).encode(other)
    with pytest.raises(EncodeError, match="not bytes"):
        codec_for(bytes).encode("text")


class Struct(msgspec.Struct):
    a: int


def test_structs_bytes_and_arrays_go_there_and_back() -> None:
    array = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    plain: list[tuple[Any, Any]] = [(Struct, Struct(1)), (bytes, b"\0\xff"), (dict[str, int], {"a": 1})]
    for type_, value in plain:
        codec = codec_for(type_)
        assert codec.decode(codec.encode(value)) == value
    arrays: list[tuple[Any, Any]] = [(numpy.ndarray, array), (torch.Tensor, torch.from_numpy(array))]
    for type_, value in arrays:
        codec = codec_for(type_)
        assert codec.content_type == "application/x-npy"
        assert (codec.decode(codec.encode(value)) == value).all()


def test_pickles_in_arrays_are_refused() -> None:
    import io
    import pickle

    file = io.BytesIO()
    numpy.save(file, numpy.array([{"a": 1}], dtype=object), allow_pickle=True)
    for body in (file.getvalue(), pickle.dumps([1]), b"", b"\x93NUMPY"):
        with pytest.raises(DecodeError, match="npy"):
            codec_for(numpy.ndarray).decode(body)


def test_models_are_named_by_a_line(tmp_path: Path) -> None:
    def names(spec: str) -> list[str]:
        return [each.model.__name__ for each in load_models(spec, tmp_path)]

    assert names("tests.unit.test_sdk:Twice,Later") == ["Twice", "Later"]
    assert names("tests.unit.test_sdk:Twice, tests.models:Echo") == ["Twice", "Echo"]


def test_models_are_named_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "tundish.toml").write_text('[[models]]\nclass = "tests.models:Echo"\npool = "gpu"\n')
    [served] = load_models("", tmp_path)
    assert (served.model.name, served.pool) == ("echo", "gpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it names no models"),
        ('[[model]]\nclass = "tests.models:Echo"', "it names no models"),
        ('models = ["tests.models:Echo"]', "and nothing else"),
        ('[[models]]\npool = "gpu"', "has not a class"),
        ('[[models]]\nclass = "tests.models:Echo"\npol = "gpu"', "and nothing else"),
        ('[[models]]\nclass = "tests.models:Echo"\npool = 3', "3 names no pool"),
        ('[[models]]\nclass = "Echo"', "'Echo' names no class"),
        ("[[models]]\nclass = 3", "3 names no class"),
        ("[[models]", "Expected"),
    ],
)
def test_a_file_that_names_no_model_says_what_to_write(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tundish.toml").write_text(text)
    with pytest.raises(CatalogError, match=rf"tundish.toml: .*{message}.*; write \[\[models\]\]"):
        load_models("", tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no model is named; set TUNDISH_MODELS"),
        ("Twice", "write package.module:Class"),
        ("tests.unit.test_sdk:", "write package.module:Class"),
        ("no.such:Model", r"there is no module no; is it on PYTHONPATH\?"),
        ("tests.such:Model", r"there is no module tests.such; is it on PYTHONPATH\?"),
        ("models/count.py:Count", "names a file; write its module: models.count:Count"),
        (".such:Model", "has no package; write package.module:Class"),
        ("tests.unit.script:Model", "ends the process that imports it"),
        ("tests.unit.test_sdk:Nothing", "there is no Nothing in tests.unit.test_sdk; it defines Twice, Later"),
        ("tests.local:Nothing", "there is no Nothing in tests.local$"),
        ("tests.unit.test_sdk:Point", "is not a subclass"),
        ("tests.unit.test_sdk:Twice,Twice", "twice@1 is named twice"),
    ],
)
def test_models_that_cannot_be_found_say_what_to_change(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_models(spec, tmp_path)


def test_what_a_model_imports_and_is_not_installed_is_told_from_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy.py").write_text("import not_installed.part")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CatalogError) as refused:
        load_models("needy:Needy", tmp_path)
    remedy = f"what has it is installed by {sys.executable} -m pip install …"
    assert str(refused.value) == f"needy:Needy: there is no module not_installed; {remedy}"


def test_a_module_that_lacks_something_while_it_is_imported_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking.py").write_text("import json\njson.nothing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AttributeError, match="nothing"):  # with its lines
        load_models("lacking:Lacking", tmp_path)


def test_a_description_holds_what_the_catalog_shows() -> None:
    described = describe(Served(Later, "gpu"))
    assert (described.model, described.version, described.pool, described.max_batch) == ("twice", "2", "gpu", 2)
    assert (described.input_type, described.example) == ("application/json", {"x": 1, "y": 0.5})


@pytest.mark.parametrize("example", [{"x": 1, "y": 0.5}, Point("one", 0.5), object()])  # type: ignore[arg-type]  # that is the point
def test_an_example_that_is_no_input_is_told(example: Any) -> None:
    with pytest.raises(DefinitionError, match=r"\.example is .*; set it to an input, .*Point"):
        describe(Served(type("Wrong", (Twice,), {"example": example})))


def test_the_page_of_models_lists_what_a_class_may_say_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    section = page.partition("## What a class may say")[2].partition("\n## ")[0]
    shown: dict[str, str | None] = {}
    for names, defaults in re.findall(r"^\| (`[^|]*)\|([^|]*)\|", section, re.MULTILINE):
        shown |= dict(zip_longest(re.findall(r"\w+", names), filter(None, defaults.strip().split(", "))))
    said = {name for name in {*vars(Model), *Model.__annotations__} if not name.startswith("_")}
    assert shown.keys() == said - {"load", "predict"}
    defaults = {name: str(value) for name, value in vars(Model).items() if name in shown and not callable(value)}
    assert {name: default for name, default in shown.items() if default} == defaults | {"cost": "1"}
