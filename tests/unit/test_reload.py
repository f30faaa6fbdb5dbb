"""Which models a file defines, and what keeps it from being served."""

import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from tundish.catalog import CatalogError
from workers.reload import Reload, models
from workers.upcoming import Ended

MODEL = """
from __future__ import annotations
from dataclasses import dataclass
from tundish import Batch, Model

@dataclass
class Text:
    text: str

class Base(Model[Text, str]):
    version = "1"

    def predict(self, batch):
        return [item.text for item in batch]

class One(Base):
    name = "one"

class Two(Base):
    name = "two"
    version = "2"

Alias = Two
"""


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """What a test imports, and where from, is forgotten."""
    names, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - names:
        del sys.modules[name]


def test_the_models_of_a_file_are_its_own_less_bases_and_read_anew_each_time(tmp_path: Path) -> None:
    (file := tmp_path / "mine_1.py").write_text(MODEL)
    assert [each.name for each in models(file)] == ["one", "two"]
    [before, _] = models(file)
    (file := tmp_path / "mine_1.py").write_text(MODEL.replace('"one"', '"ten"'))  # of like size, in the same second
    assert [each.name for each in models(file)] == ["ten", "two"]
    assert before.name == "one"


def test_a_file_of_a_package_is_imported_as_python_does(tmp_path: Path) -> None:
    (folder := tmp_path / "mine_2" / "inner").mkdir(parents=True)
    (tmp_path / "mine_2" / "__init__.py").touch()
    (folder / "__init__.py").write_text("from .model import One\nfrom tundish import Model")
    (folder / "words.py").write_text('NAME = "other"')
    (folder / "model.py").write_text(MODEL.replace("\n@", "\nfrom .words import NAME\n@").replace('"one"', "NAME"))
    [one, _] = models(folder / "model.py")
    assert (one.name, one.__module__) == ("other", "mine_2.inner.model")
    with pytest.raises(CatalogError, match="it defines no model: write"):
        models(folder / "__init__.py")


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    (file := tmp_path / "json.py").write_text(MODEL)
    json = sys.modules["json"]
    with pytest.raises(CatalogError, match="is the module json already; give the file another name"):
        models(file)
    assert sys.modules["json"] is json


def test_a_file_that_raises_leaves_the_former_module(tmp_path: Path) -> None:
    (file := tmp_path / "mine_3.py").write_text(MODEL)
    models(file)
    former = sys.modules["mine_3"]
    file.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        models(file)
    assert sys.modules["mine_3"] is former


def test_a_worker_that_ends_is_no_fault_of_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (file := tmp_path / "mine_4.py").write_text(MODEL)
    Reload(file)._read(Mock(side_effect=Ended))
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []
