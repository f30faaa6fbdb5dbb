"""The guard of outbound requests, held against one table of URLs, names and redirects."""

import asyncio
import ipaddress
import logging
import socket
import threading
from collections.abc import Sequence
from queue import Queue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.outbound_vectors import ACCEPTED, HTTPS, NAMES, PRIVATE, REDIRECTS, REFUSED
from tundish import outbound

FROM = outbound.Destination("https", "public.test", 443, "/a/b")


@pytest.mark.parametrize(("url", "why"), REFUSED)
def test_urls_that_nobody_may_name(url: str, why: str) -> None:
    with pytest.raises(outbound.Refused, match=why):
        outbound.acceptable(url, [])


@pytest.mark.parametrize(("url", "parsed"), ACCEPTED)
def test_urls_that_are_fine(url: str, parsed: tuple[str, str, int, str]) -> None:
    assert outbound.acceptable(url, []) == outbound.Destination(*parsed)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_looked_up_once_and_refused_if_any_address_is(name: str) -> None:
    answers, refused = NAMES[name]
    asked: list[str] = []

    async def look_up(name: str) -> Sequence[str]:
        asked.append(name)
        return answers[len(asked) - 1]

    destination = outbound.acceptable(f"https://{name}/", [])
    if refused:
        with pytest.raises(outbound.Refused, match=PRIVATE):
            asyncio.run(outbound.resolve(destination, [], look_up))
    else:
        assert str(asyncio.run(outbound.resolve(destination, [], look_up))) == answers[0][0]
    assert asked == [name]


@pytest.mark.parametrize(("location", "found"), REDIRECTS)
def test_a_redirect_is_parsed_like_the_first_url(location: str, found: str | tuple[str, str, int, str]) -> None:
    if isinstance(found, str):
        with pytest.raises(outbound.Refused, match=found):
            outbound.redirected(FROM, location)
    else:
        assert outbound.redirected(FROM, location) == outbound.Destination(*found)


def test_the_table_has_no_row_twice() -> None:
    urls = [url for url, _ in REFUSED] + [url for url, _ in ACCEPTED]
    assert len(urls) == len(set(urls))
    assert len(urls) + len(NAMES) + len(REDIRECTS) >= 150


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.sampled_from(["", "https://", "https://[", "//"]))
def test_any_text_is_refused_or_parsed_for_good(text: str, before: str) -> None:
    try:
        parsed = outbound.parse(before + text)
    except outbound.Refused:
        return
    assert outbound.parse(f"{parsed.scheme}://{parsed.authority}{parsed.path}") == parsed


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_inside_ipv6_is_never_public(number: int) -> None:
    inside = [number, 0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80]
    for each in inside:
        with pytest.raises(outbound.Refused):
            outbound.judge(FROM, [str(ipaddress.IPv6Address(each))], [])


def test_a_name_that_cannot_be_resolved_is_told_as_one_that_is_private() -> None:
    async def look_up(name: str) -> Sequence[str]:
        if name == "unknown.test":
            raise socket.gaierror("unknown")
        return ["10.0.0.1"]

    said = set()
    for name in ("unknown.test", "private.test"):
        with pytest.raises(outbound.Refused) as refused:
            asyncio.run(outbound.resolve(outbound.parse(f"https://{name}/"), [], look_up))
        said.add(str(refused.value))
    assert len(said) == 1
    assert "10.0.0.1" not in said.pop()


def test_the_log_says_where_a_name_leads_and_why_that_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def look_up(name: str) -> Sequence[str]:
        return ["10.0.0.1", "8.8.8.8"]

    with caplog.at_level(logging.INFO, "tundish.outbound"), pytest.raises(outbound.Refused) as refused:
        asyncio.run(outbound.resolve(outbound.parse("https://private.test/"), [], look_up))
    assert caplog.messages == [f"private.test is at 10.0.0.1, 8.8.8.8: {refused.value}"]


@pytest.mark.parametrize(
    ("url", "addresses", "why"),
    [
        ("http://10.0.0.1:8080/x", ["10.0.0.1"], None),
        ("https://10.0.0.1/", ["10.0.0.1"], None),
        ("http://[::1]:8080/x", ["::1"], None),
        ("http://inside.test:9000/", ["10.0.0.1", "10.0.0.2"], None),
        ("https://inside.test/", ["10.0.0.1", "8.8.8.8"], None),
        ("https://public.test/", ["8.8.8.8"], None),
        ("http://inside.test/", ["10.0.0.1", "8.8.8.8"], HTTPS),
        ("http://public.test/", ["8.8.8.8"], HTTPS),
        ("https://public.test:8443/", ["8.8.8.8"], HTTPS),
        ("http://inside.test/", ["10.0.0.1", "192.168.0.1"], PRIVATE),
        ("http://192.168.0.1/", ["192.168.0.1"], PRIVATE),
        ("http://[::ffff:a00:1]/", ["::ffff:10.0.0.1"], PRIVATE),
        ("http://[64:ff9b::a00:1]/", ["64:ff9b::10.0.0.1"], PRIVATE),
        ("http://[::2]/", ["::2"], PRIVATE),
    ],
)
def test_an_operator_can_allow_a_network_and_http_in_it_alone(url: str, addresses: list[str], why: str | None) -> None:
    allowed = [ipaddress.ip_network(each) for each in ("10.0.0.0/8", "::1/128")]
    destination = outbound.parse(url)
    if why is None:
        assert str(outbound.judge(destination, addresses, allowed)) == addresses[0]
        assert outbound.acceptable(url, allowed) == destination
    else:
        with pytest.raises(outbound.Refused, match=why):
            outbound.judge(destination, addresses, allowed)


def test_a_request_goes_to_the_judged_address_with_the_name_in_host_and_sni() -> None:
    for url, address, at, host, sni in (
        ("https://example.com/a?b#c", "8.8.8.8", "https://8.8.8.8:443/", "example.com", "example.com"),
        ("http://inside.test:8080/", "fd00::1", "http://[fd00::1]:8080/", "inside.test:8080", "inside.test"),
        ("https://[2606:4700::1]/", "2606:4700::1", "https://[2606:4700::1]:443/", "[2606:4700::1]", "2606:4700::1"),
    ):
        destination = outbound.parse(url)
        given = outbound.pinned(destination, ipaddress.ip_address(address), {"accept": "*/*"})
        assert given["url"] == at
        assert given["headers"] == {"accept": "*/*", "host": host}
        assert given["extensions"]["sni_hostname"] == sni
        assert given["extensions"]["target"] == destination.path.encode()


def test_a_dns_that_does_not_answer_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, began = threading.Event(), threading.Event()

    def hangs(*_: object, **__: object) -> list[object]:
        began.set()
        gate.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hangs)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(outbound.look_up("slow.test"), 0.05)

    asyncio.run(give_up())  # which joins the loop's own threads
    assert began.is_set()
    gate.set()


def test_many_names_whose_dns_hangs_take_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, began = threading.Event(), Queue[str]()

    def hangs(name: str, *_: object, **__: object) -> list[Any]:
        began.put(name)
        gate.wait()
        return [(0, 0, 0, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    monkeypatch.setattr(outbound, "LOOK_UP", 0.05)
    look_up = outbound.LookUps(3)

    async def give_up() -> None:
        given = await asyncio.gather(*(look_up(f"{number}.test") for number in range(100)), return_exceptions=True)
        assert {type(each) for each in given} == {TimeoutError}

    asyncio.run(give_up())
    gate.set()
    monkeypatch.setattr(outbound, "LOOK_UP", 10.0)
    assert asyncio.run(look_up("last.test")) == ["192.0.2.1"]
    assert [began.get() for _ in range(began.qsize())] == ["0.test", "1.test", "2.test", "last.test"]
