import re
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

from tundish.settings import SettingError, Settings, unknown

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


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "65536", "TUNDISH_PORT is '65536'; set it to a port, 1 to 65535"),
        ("RETENTION", "1e10", "TUNDISH_RETENTION is '1e10'; set it to at most 1000000000 seconds, which are 31 years"),
        ("LOG_LEVEL", "loud", "TUNDISH_LOG_LEVEL is 'loud'; set it to debug or info or warning or error"),
        ("LOG_FORMAT", "xml", "TUNDISH_LOG_FORMAT is 'xml'; set it to json or text"),
        ("DATABASE_URL", "mysql://me:secret@there/x", "TUNDISH_DATABASE_URL is no such URL; set it to postgresql://…"),
        ("PUBLIC_URL", "example.com", "TUNDISH_PUBLIC_URL is no such URL; set it to http://… or https://…"),
        ("REDIS_URL", "there:6379", "TUNDISH_REDIS_URL is no such URL; set it to redis://…"),
        ("REDIS_URL", "redis://:secret#1@there:6379", "TUNDISH_REDIS_URL is no URL: its host or port"),
        ("REDIS_URL", "redis://there:99999", "TUNDISH_REDIS_URL is no URL"),
        ("DATABASE_URL", "postgresql://me:secret@there:x/y", "TUNDISH_DATABASE_URL is no URL"),
        ("S3_ENDPOINT_URL", "there:9000", "TUNDISH_S3_ENDPOINT_URL is no such URL; set it to http://… or https://…"),
        ("PUBLIC_URL", "http://", "TUNDISH_PUBLIC_URL is 'http://'; set it to a URL with a host, of ASCII"),
        ("PUBLIC_URL", "http://例え.jp", "TUNDISH_PUBLIC_URL is 'http://例え.jp'; set it to a URL"),
        ("PUBLIC_URL", "http://a b", "TUNDISH_PUBLIC_URL is 'http://a b'; set it to a URL with a host, of ASCII"),
        ("API_KEY", "\udcff", "TUNDISH_API_KEY is not UTF-8"),
    ],
)
def test_a_value_that_a_setting_cannot_have_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingError) as refused:
        Settings.from_environment({f"TUNDISH_{name}": value})
    assert str(refused.value).startswith(message)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgresql://me:se/cr#et@there:5432/x"),
        ("DATABASE_URL", "postgresql://me@/x?host=/run/a@b:c"),
        ("REDIS_URL", "redis://:se%23cret@there:6379/1"),
        ("REDIS_URL", "unix:///run/valkey.sock?db=7"),
        ("BLOB_URL", "file:///a b/é"),
    ],
)
def test_a_url_that_its_reader_takes_is_taken(name: str, url: str) -> None:
    assert getattr(Settings.from_environment({f"TUNDISH_{name}": url}), name.lower()) == url


def test_networks_are_listed_with_commas() -> None:
    given = Settings.from_environment({"TUNDISH_OUTBOUND_ALLOW": "10.0.0.0/8, ::1/128,"})
    assert given.outbound_allow == (ip_network("10.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "internal", "10.0.0.0/8;::1"])
def test_a_setting_that_names_no_networks(text: str) -> None:
    with pytest.raises(SettingError, match=r"^TUNDISH_OUTBOUND_ALLOW: .*(network|host bits)"):
        Settings.from_environment({"TUNDISH_OUTBOUND_ALLOW": text})


def test_a_choice_may_be_in_capitals() -> None:
    assert Settings.from_environment({"TUNDISH_LOG_LEVEL": "INFO"}) == Settings()


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `TUNDISH_(\w+)` \| ([^|]*) \|", (TREE / "README.md").read_text(), re.MULTILINE)
    documented = {name.lower(): default.strip().strip("`") for name, default in rows}
    assert documented == {field.name: _shown(field.default) for field in fields(Settings)}


def test_the_example_file_names_settings_alone() -> None:
    names = re.findall(r"^#? ?TUNDISH_(\w+)=", (TREE / ".env.example").read_text(), re.MULTILINE)
    assert names
    assert {name.lower() for name in names} <= {field.name for field in fields(Settings)}


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) and default < 1e6 else str(default).removesuffix(".0")


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(SettingError, match=r"^set TUNDISH_DATABASE_URL, TUNDISH_BLOB_URL; "):
        Settings(redis_url="redis://x").demand("database_url", "redis_url", "blob_url")


def test_what_is_no_setting_is_told_with_the_one_that_is_meant_where_there_is_one() -> None:
    given = {"TUNDISH_WORKER": "3", "TUNDISH_TIMOUT": "5", "TUNDISH_PORT": "1", "PATH": "/"}
    assert unknown(given) == [
        "TUNDISH_TIMOUT is no setting; do you mean TUNDISH_TIMEOUT?",
        "TUNDISH_WORKER is no setting",
    ]
