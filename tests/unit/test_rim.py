"""Logs, webhook signatures, blob directories and the guard of outbound requests."""

import io
import json
import logging
import os
import stat
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tundish import logs, outbound, webhooks
from tundish.blobs import BadSignature, BlobMissing, BlobUnavailable, Directory, job_prefix, key, open_blobs
from tundish.ids import new_uuid, to_text
from tundish.settings import SettingError, Settings
from workers.courier import DELAYS, verdict


def test_a_line_of_json_carries_ids_and_the_traceback() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    try:
        raise ValueError("b\0ad")
    except ValueError:
        logging.getLogger("workers.x").warning("it broke: %s", 1, extra={"job": "job_1", "other": 2}, exc_info=True)
    logging.getLogger("workers.x").debug("not shown")
    logging.getLogger("boto").info("not shown")
    [line] = stream.getvalue().splitlines()
    shown = json.loads(line)
    assert list(shown) == ["time", "level", "logger", "message", "job", "exception"]
    assert (shown["message"], shown["job"], shown["level"]) == ("it broke: 1", "job_1", "warning")
    assert "ValueError" in shown["exception"]


def test_a_line_of_text_is_for_a_person() -> None:
    stream = io.StringIO()
    logs.configure("text", "debug", stream)
    logging.getLogger("api").info("hello", extra={"request": "r1"})
    assert stream.getvalue().endswith("INFO     api: hello request=r1\n")


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNED = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')


def test_the_vector_of_standard_webhooks() -> None:
    assert webhooks.sign(SECRET, *SIGNED) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_checks_signature_and_time() -> None:
    id, at, body = SIGNED
    headers = webhooks.headers([webhooks.new_secret(), SECRET], id, at, body)
    webhooks.verify(SECRET, {name.title(): value for name, value in headers.items()}, body, now=at + 299)
    for wrong in ({"now": at + 301}, {"now": at - 301}):
        with pytest.raises(webhooks.InvalidSignature, match="timestamp"):
            webhooks.verify(SECRET, headers, body, **wrong)
    with pytest.raises(webhooks.InvalidSignature, match="no signature"):
        webhooks.verify(SECRET, headers, body + b" ", now=at)
    with pytest.raises(webhooks.InvalidSignature, match="required"):
        webhooks.verify(SECRET, {}, body)


def test_the_schedule_of_deliveries() -> None:
    assert verdict(1, 204) == ("delivered", None)
    assert verdict(3, 410) == ("dead", None)
    for attempt, delay in enumerate(DELAYS, 1):
        status, again_in = verdict(attempt, 500)
        assert (status, delay <= (again_in or 0) <= 1.2 * delay) == ("pending", True)
    assert verdict(len(DELAYS) + 1, None) == ("dead", None)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "blobs", b"secret")


def test_a_blob_is_kept_under_its_key(directory: Directory) -> None:
    job = new_uuid()
    name = key(1, job, 2, "output")
    assert name.split("/")[2:] == [to_text("job", job), "2", "output"]
    directory.put(name, b"\0body", "image/png")
    directory.put(name, b"\0body", "image/png")
    assert directory.get(name) == b"\0body"
    directory.delete_prefix(job_prefix(1, job))
    directory.delete_prefix(job_prefix(1, job))
    with pytest.raises(BlobMissing):
        directory.get(name)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a//b", "a\0/b", ""])
def test_no_key_leads_out_of_the_folder(directory: Directory, tmp_path: Path, name: str) -> None:
    with pytest.raises(BlobMissing):
        directory.put(name, b"x", "text/plain")
    assert not list(tmp_path.rglob("*"))[1:]


def test_a_signed_url_opens_one_blob_for_a_while(directory: Directory) -> None:
    name = key(1, new_uuid(), 1, "output")
    directory.put(name, b"body", "text/plain")
    url = urlsplit(directory.get_url(name, "text/plain"))
    given = {name: values[0] for name, values in parse_qs(url.query).items()}
    path = unquote(url.path).removeprefix("/v1/blobs/")
    arguments = {"content_type": given["type"], "expires": given["expires"], "signature": given["signature"]}
    assert directory.open_signed("GET", path, **arguments).path.read_bytes() == b"body"
    for method, other, change in (
        ("PUT", path, {}),
        ("GET", path.replace("/1/output", "/2/output"), {}),
        ("GET", path, {"expires": "99999999999"}),
        ("GET", path, {"content_type": "text/html"}),
        ("GET", path, {"signature": "é"}),
    ):
        with pytest.raises(BadSignature):
            directory.open_signed(method, other, **{**arguments, **change})
    signature = directory._sign("GET", path, "text/plain", "1000")
    with pytest.raises(BadSignature, match="expired"):
        directory.open_signed("GET", path, "text/plain", "1000", signature)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BlobUnavailable, match="blob directory"):
        Directory(tmp_path / "file", b"s").put("1/2/3", b"x", "text/plain")
    with pytest.raises(BlobUnavailable):
        Directory(tmp_path / "none", b"s").check()


def test_blobs_lie_private_and_whole(directory: Directory, tmp_path: Path) -> None:
    directory.put("1/2/3", b"x", "text/plain")
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


@pytest.mark.parametrize("url", ["", "ftp://x", "file://host/dir", "s3:///prefix", "/dir"])
def test_a_blob_url_that_is_none(url: str) -> None:
    with pytest.raises(SettingError, match="TUNDISH_BLOB_URL"):
        open_blobs(Settings(blob_url=url))


@pytest.mark.parametrize(
    "url",
    ["http://example.com/", "https://example.com:8443/", "https://127.0.0.1/", "https://10.1.2.3/", "https://[::1]/",
     "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/", "https://[64:ff9b:1::1]/", "https://[2002:a00:1::]/",
     "https://[::10.0.0.1]/", "https://[fec0::1]/", "https://[fe80::1]/", "https://[fc00::1]/", "https://[3fff::1]/",
     "https://[5f00::1]/", "https://224.0.0.1/", "https://192.0.0.8/", "https://192.88.99.1/", "https://169.254.169.254/",
     "https://168.63.129.16/", "https://0.0.0.0/", "https://255.255.255.255/", "https://100.64.0.1/",
     "https://2130706433/", "https://017700000001/", "https://0x7f.1/", "https://127.1/", "https://0x7f000001/",
     "https://127.0.0.1./", "https://1.2.3.4.5/", "https://user@example.com/", "https://user:pass@example.com/",
     "https://example.com\\@10.0.0.1/", "https://exa mple.com/", "https://example.com/\r\nx", "https://ex%61mple.com/",
     "https://\uff11\uff12\uff17.0.0.1/", "https://127.0.0.1\0.example.com/", "https://éxample.com/", "ftp://example.com/",
     "file:///etc/passwd", "//example.com/", "https://", "https:///path", "https://[::1", "https://[zz]/",
     "https://example.com:0/", "https://example.com:99999/", "https://example.com:x/", "https://-/", "javascript:1",
     "https://example.com/" + "x" * 3000],
)  # fmt: skip
def test_urls_that_no_one_may_name(url: str) -> None:
    with pytest.raises(outbound.Refused):
        outbound.acceptable(url, [])


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("https://example.com", outbound.Destination("https", "example.com", 443, "/")),
        ("HTTPS://Example.COM/A?b=c#d", outbound.Destination("https", "example.com", 443, "/A?b=c")),
        ("https://example.com?x", outbound.Destination("https", "example.com", 443, "/?x")),
        ("https://8.8.8.8/", outbound.Destination("https", "8.8.8.8", 443, "/")),
        ("https://[2606:4700::1111]/", outbound.Destination("https", "[2606:4700::1111]", 443, "/")),
        ("https://xn--bcher-kva.example/", outbound.Destination("https", "xn--bcher-kva.example", 443, "/")),
    ],
)
def test_urls_that_are_fine(url: str, parsed: outbound.Destination) -> None:
    assert outbound.acceptable(url, []) == parsed


def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    destination = outbound.parse("https://example.com/")
    assert str(outbound.judge(destination, ["8.8.8.8", "2606:4700::1111"], [])) == "8.8.8.8"
    for addresses in (["8.8.8.8", "10.0.0.1"], ["fe80::1%eth0"], []):
        with pytest.raises(outbound.Refused):
            outbound.judge(destination, addresses, [])


def test_an_operator_can_allow_a_private_network_and_http_in_it() -> None:
    allowed = outbound.networks("10.0.0.0/8, ::1/128")
    assert outbound.acceptable("http://10.0.0.1:8080/x", allowed).authority == "10.0.0.1:8080"
    assert outbound.acceptable("http://[::1]:8080/x", allowed).port == 8080
    for url in ("http://192.168.0.1/", "http://8.8.8.8/"):
        with pytest.raises(outbound.Refused):
            outbound.acceptable(url, allowed)
