import re
from dataclasses import fields
from pathlib import Path

import pytest

from tundish.settings import SettingError, Settings

TREE = Path(__file__).parents[2]


def test_each_variable_sets_its_field() -> None:
    given = Settings.from_environment({"TUNDISH_PORT": "9000", "TUNDISH_LEASE": "1.5", "TUNDISH_DATA_DIR": "/x"})
    assert (given.port, given.lease, given.data_dir) == (9000, 1.5, Path("/x"))
    assert Settings.from_environment({"TUNDISH_PORT": ""}) == Settings()
    assert Settings.from_environment({"TUNDISH_API_KEY": " a key\n", "TUNDISH_SECRET": "\n"}) == Settings(
        api_key="a key"
    )


def test_links_have_one_slash_behind_the_public_url() -> None:
    given = Settings.from_environment({"TUNDISH_PUBLIC_URL": "https://example.com/inference/"})
    assert given.public_url == "https://example.com/inference"


@pytest.mark.parametrize("value", ["x", "0", "-1", "nan", "inf", "1e999"])
def test_a_number_that_is_none_is_named(value: str) -> None:
    with pytest.raises(SettingError, match="TUNDISH_LEASE"):
        Settings.from_environment({"TUNDISH_LEASE": value})
    with pytest.raises(SettingError, match="TUNDISH_PORT"):
        Settings.from_environment({"TUNDISH_PORT": value})


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `TUNDISH_(\w+)` \| ([^|]*) \|", (TREE / "README.md").read_text(), re.MULTILINE)
    documented = {name.lower(): default.strip().strip("`") for name, default in rows}
    assert documented == {field.name: _shown(field.default) for field in fields(Settings)}


def test_the_example_file_names_settings_alone() -> None:
    names = re.findall(r"^#? ?TUNDISH_(\w+)=", (TREE / ".env.example").read_text(), re.MULTILINE)
    assert names
    assert {name.lower() for name in names} <= {field.name for field in fields(Settings)}


def _shown(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) and default < 1e6 else str(default).removesuffix(".0")
