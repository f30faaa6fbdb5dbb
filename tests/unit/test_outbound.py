"""The guard of outbound requests, held against one table of URLs, names and redirects.

`tests/integration/test_canaries.py` sends the same rows to real listeners.
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundish import outbound

# Why a URL is refused: a part of the message.
PLAIN = "not a plain http or https URL"
ASCII = "must be ASCII"
FORM = "canonical form"
PORT = "port is none"
HTTPS = "https on port 443"
PRIVATE = "not public"

#: URLs that nobody may name, and why.
REFUSED = [
    # IPv4 that is not public: each range, its edges where they are easily missed.
    ("https://0.0.0.0/", PRIVATE),
    ("https://0.255.255.255/", PRIVATE),
    ("https://10.0.0.0/", PRIVATE),
    ("https://10.1.2.3/", PRIVATE),
    ("https://10.255.255.255/", PRIVATE),
    ("https://100.64.0.1/", PRIVATE),
    ("https://100.100.100.200/", PRIVATE),  # a cloud's metadata
    ("https://100.127.255.255/", PRIVATE),
    ("https://127.0.0.1/", PRIVATE),
    ("https://127.0.0.53/", PRIVATE),
    ("https://127.255.255.254/", PRIVATE),
    ("https://168.63.129.16/", PRIVATE),  # a cloud's host agent
    ("https://169.254.0.1/", PRIVATE),
    ("https://169.254.169.254/latest/meta-data/", PRIVATE),
    ("https://169.254.170.2/v2/credentials", PRIVATE),
    ("https://172.16.0.1/", PRIVATE),
    ("https://172.31.255.255/", PRIVATE),
    ("https://192.0.0.1/", PRIVATE),
    ("https://192.0.0.8/", PRIVATE),
    ("https://192.0.0.192/opc/v2/", PRIVATE),  # a cloud's metadata
    ("https://192.0.2.1/", PRIVATE),
    ("https://192.88.99.1/", PRIVATE),
    ("https://192.168.0.1/", PRIVATE),
    ("https://192.168.255.255/", PRIVATE),
    ("https://198.18.0.1/", PRIVATE),
    ("https://198.19.255.255/", PRIVATE),
    ("https://198.51.100.1/", PRIVATE),
    ("https://203.0.113.1/", PRIVATE),
    ("https://224.0.0.1/", PRIVATE),
    ("https://239.255.255.250/", PRIVATE),
    ("https://240.0.0.1/", PRIVATE),
    ("https://255.255.255.255/", PRIVATE),
    # IPv6 that is not public.
    ("https://[::]/", PRIVATE),
    ("https://[::1]/", PRIVATE),
    ("https://[::2]/", PRIVATE),
    ("https://[100::1]/", PRIVATE),  # discard
    ("https://[100:0:0:1::1]/", PRIVATE),
    ("https://[2001::1]/", PRIVATE),  # Teredo
    ("https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", PRIVATE),
    ("https://[2001:2::1]/", PRIVATE),  # benchmarks
    ("https://[2001:10::1]/", PRIVATE),  # ORCHID
    ("https://[2001:20::1]/", PRIVATE),
    ("https://[2001:db8::1]/", PRIVATE),  # documentation
    ("https://[3fff::1]/", PRIVATE),
    ("https://[4000::1]/", PRIVATE),  # not given out
    ("https://[5f00::1]/", PRIVATE),  # segment routing
    ("https://[fc00::1]/", PRIVATE),
    ("https://[fd00::1]/", PRIVATE),
    ("https://[fd00:ec2::254]/latest/meta-data/", PRIVATE),
    ("https://[fd20:ce::254]/", PRIVATE),
    ("https://[fe80::1]/", PRIVATE),
    ("https://[fe80::a9fe:a9fe]/", PRIVATE),
    ("https://[febf::1]/", PRIVATE),
    ("https://[fec0::1]/", PRIVATE),  # site-local
    ("https://[feff::1]/", PRIVATE),
    ("https://[ff02::1]/", PRIVATE),  # multicast
    ("https://[ff0e::1]/", PRIVATE),
    ("https://[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]/", PRIVATE),
    # IPv4 inside IPv6: mapped, compatible, translated, NAT64, 6to4, ISATAP; of a public one too.
    ("https://[::ffff:7f00:1]/", PRIVATE),
    ("https://[::ffff:a00:1]/", PRIVATE),
    ("https://[::ffff:a9fe:a9fe]/", PRIVATE),
    ("https://[::ffff:808:808]/", PRIVATE),
    ("https://[::7f00:1]/", PRIVATE),
    ("https://[::a00:1]/", PRIVATE),
    ("https://[::808:808]/", PRIVATE),
    ("https://[::ffff:0:7f00:1]/", PRIVATE),
    ("https://[64:ff9b::7f00:1]/", PRIVATE),
    ("https://[64:ff9b::a00:1]/", PRIVATE),
    ("https://[64:ff9b::a9fe:a9fe]/", PRIVATE),
    ("https://[64:ff9b::808:808]/", PRIVATE),
    ("https://[64:ff9b:1::1]/", PRIVATE),
    ("https://[64:ff9b:1:a00:0:100::]/", PRIVATE),
    ("https://[2002:7f00:1::]/", PRIVATE),
    ("https://[2002:a00:1::1]/", PRIVATE),
    ("https://[2002:a9fe:a9fe::1]/", PRIVATE),
    ("https://[2002:808:808::1]/", PRIVATE),
    ("https://[fe80::5efe:7f00:1]/", PRIVATE),
    # Numeric forms that some reader takes for an address.
    ("https://2130706433/", FORM),
    ("https://4294967295/", FORM),
    ("https://4294967297/", FORM),
    ("https://0/", FORM),
    ("https://1/", FORM),
    ("https://127.1/", FORM),
    ("https://127.0.1/", FORM),
    ("https://10.1/", FORM),
    ("https://017700000001/", FORM),
    ("https://0177.0.0.1/", FORM),
    ("https://0177.1/", FORM),
    ("https://127.0.0.01/", FORM),
    ("https://127.00.0.1/", FORM),
    ("https://010.0.0.1/", FORM),
    ("https://0x7f000001/", FORM),
    ("https://0X7F000001/", FORM),
    ("https://0x7f.1/", FORM),
    ("https://0x7f.0.0.1/", FORM),
    ("https://127.0.0.0x1/", FORM),
    ("https://0x/", FORM),
    ("https://1.0x/", FORM),
    ("https://0xa9.0376.43518/", FORM),
    ("https://169.16689662/", FORM),
    ("https://256.0.0.1/", FORM),
    ("https://1.2.3.4.5/", FORM),
    ("https://1.2.3/", FORM),
    ("https://example.1/", FORM),
    ("https://8.8.8.08/", FORM),
    ("https://[0:0:0:0:0:0:0:1]/", FORM),
    ("https://[::0001]/", FORM),
    ("https://[0::1]/", FORM),
    ("https://[::127.0.0.1]/", FORM),
    ("https://[64:ff9b::10.0.0.1]/", FORM),
    ("https://[2606:4700:0:0:0:0:0:1111]/", FORM),
    ("https://[::1::]/", FORM),
    ("https://[1::2::3]/", FORM),
    ("https://[12345::]/", FORM),
    ("https://[:]/", FORM),
    ("https://[127.0.0.1]/", FORM),
    ("https://[8.8.8.8]/", FORM),
    ("https://[2130706433]/", FORM),
    ("https://[dead]/", FORM),
    ("https://127.0.0.1./", PLAIN),
    ("https://127.0.0.1../", PLAIN),
    ("https://.127.0.0.1/", PLAIN),
    ("https://127..1/", PLAIN),
    # Userinfo, and what looks like it.
    ("https://user@example.com/", PLAIN),
    ("https://user:pass@example.com/", PLAIN),
    ("https://@example.com/", PLAIN),
    ("https://:@example.com/", PLAIN),
    ("https://8.8.8.8@127.0.0.1/", PLAIN),
    ("https://example.com:443@127.0.0.1/", PLAIN),
    ("https://example.com%40127.0.0.1/", PLAIN),
    ("https://a@b@127.0.0.1/", PLAIN),
    ("https://[::1]@example.com/", PLAIN),
    # Backslashes: a slash to one reader, a letter to another.
    ("https:\\\\example.com\\", PLAIN),
    ("https://example.com\\@127.0.0.1/", PLAIN),
    ("https://127.0.0.1\\@example.com/", PLAIN),
    ("https://example.com\\.127.0.0.1/", PLAIN),
    ("https://example.com/\\..\\x", PLAIN),
    ("https://example.com/?a=\\", PLAIN),
    ("https://example.com/#\\@127.0.0.1/", PLAIN),
    ("https:/\\example.com/", PLAIN),
    # White space and control characters, anywhere: a reader may strip, stop at, or send them.
    (" https://example.com/", PLAIN),
    ("https://example.com/ ", PLAIN),
    ("https://exa mple.com/", PLAIN),
    ("https://example.com /", PLAIN),
    ("https:// example.com/", PLAIN),
    ("https://exam\tple.com/", PLAIN),
    ("ht\ntps://example.com/", PLAIN),
    ("https://example.com/\n", PLAIN),
    ("https://example.com/\r\nHost: 127.0.0.1", PLAIN),
    ("https://example.com\r\n@127.0.0.1/", PLAIN),
    ("https://example.com/x y", PLAIN),
    ("https://example.com/#a\nb", PLAIN),
    ("https://127.0.0.1\0.example.com/", PLAIN),
    ("https://example.com\0/", PLAIN),
    ("https://example.com/\x7f", PLAIN),
    ("https://example.com/\x1b[2J", PLAIN),
    ("\x01https://example.com/", PLAIN),
    # A percent sign in the host: decoded by some, a zone to others.
    ("https://ex%61mple.com/", PLAIN),
    ("https://127%2e0%2e0%2e1/", PLAIN),
    ("https://%31%32%37.0.0.1/", PLAIN),
    ("https://example.com%00.evil.example/", PLAIN),
    ("https://example.com%2f@127.0.0.1/", PLAIN),
    ("https://[fe80::1%25eth0]/", PLAIN),
    ("https://[fe80::1%eth0]/", PLAIN),
    # What is not ASCII: full-width digits, other dots, look-alikes, letters that fold to ASCII.
    ("https://éxample.com/", ASCII),
    ("https://bücher.example/", ASCII),
    ("https://\uff11\uff12\uff17.0.0.1/", ASCII),
    ("https://127\u30020\u30020\u30021/", ASCII),
    ("https://127\uff0e0\uff0e0\uff0e1/", ASCII),
    ("https://\u2460\u2461\u2466.0.0.1/", ASCII),
    ("https://\u24d4xample.com/", ASCII),
    ("https://example.com\uff0f@127.0.0.1/", ASCII),
    ("https://example.com\u2044@127.0.0.1/", ASCII),
    ("https://\u0131nternal.example/", ASCII),
    ("https://\u212aubernetes.default/", ASCII),
    ("http\u017f://example.com/", ASCII),
    ("https://exa\u00admple.com/", ASCII),
    ("https://exam\u200bple.com/", ASCII),
    ("https://\ufeffexample.com/", ASCII),
    ("https://example.com/\u0661", ASCII),
    ("https://\ud800.example/", ASCII),
    # Hosts that are none.
    ("https://", PLAIN),
    ("https:///", PLAIN),
    ("https:///path", PLAIN),
    ("https://:443/", PLAIN),
    ("https://?x", PLAIN),
    ("https://#x", PLAIN),
    ("https://./", PLAIN),
    ("https://../", PLAIN),
    ("https://a..example.com/", PLAIN),
    ("https://.example.com/", PLAIN),
    ("https://example.com./", PLAIN),
    ("https://-/", PLAIN),
    ("https://-a.example/", PLAIN),
    ("https://a-.example/", PLAIN),
    (f"https://{'a' * 64}.example/", PLAIN),
    (f"https://{'a.' * 126}ab/", PLAIN),  # 254 characters
    ("https://exa!mple.com/", PLAIN),
    ("https://exa,mple.com/", PLAIN),
    ("https://exa*mple.com/", PLAIN),
    ("https://<example.com>/", PLAIN),
    ("https://example.com;127.0.0.1/", PLAIN),
    ("https://example.com|127.0.0.1/", PLAIN),
    ("https://{127.0.0.1}/", PLAIN),
    ("https://[]/", PLAIN),
    ("https://[::1", PLAIN),
    ("https://::1]/", PLAIN),
    ("https://::1/", PLAIN),
    ("https://[::1].example.com/", PLAIN),
    ("https://[::1]example.com/", PLAIN),
    ("https://[[::1]]/", PLAIN),
    ("https://[zz]/", PLAIN),
    ("https://[v1.x]/", PLAIN),
    ("https://[::1 ]/", PLAIN),
    # Ports.
    ("https://example.com:0/", PORT),
    ("https://example.com:65536/", PORT),
    ("https://example.com:99999/", PORT),
    ("https://example.com:/", PLAIN),
    ("https://example.com:x/", PLAIN),
    ("https://example.com:-1/", PLAIN),
    ("https://example.com:+443/", PLAIN),
    ("https://example.com:4_43/", PLAIN),
    ("https://example.com:443443/", PLAIN),
    ("https://example.com:443:80/", PLAIN),
    ("https://example.com:0x1bb/", PLAIN),
    ("https://example.com:22/", HTTPS),
    ("https://example.com:80/", HTTPS),
    ("https://example.com:8443/", HTTPS),
    ("https://8.8.8.8:6379/", HTTPS),
    # Schemes, and what has none.
    ("http://example.com/", HTTPS),
    ("http://example.com:443/", HTTPS),
    ("http://8.8.8.8/", HTTPS),
    ("http://[2606:4700::1111]/", HTTPS),
    ("HTTP://example.com/", HTTPS),
    ("ftp://example.com/", PLAIN),
    ("file:///etc/passwd", PLAIN),
    ("file://127.0.0.1/etc/passwd", PLAIN),
    ("gopher://127.0.0.1:6379/_FLUSHALL", PLAIN),
    ("dict://127.0.0.1:11211/", PLAIN),
    ("ldap://127.0.0.1/", PLAIN),
    ("jar:https://example.com!/", PLAIN),
    ("data:text/plain,x", PLAIN),
    ("javascript:1", PLAIN),
    ("unix:///var/run/docker.sock", PLAIN),
    ("ws://example.com/", PLAIN),
    ("httpss://example.com/", PLAIN),
    ("https+unix://example.com/", PLAIN),
    ("url:https://example.com/", PLAIN),
    ("https:example.com", PLAIN),
    ("https:/example.com/", PLAIN),
    ("https;//example.com/", PLAIN),
    ("://example.com/", PLAIN),
    ("//example.com/", PLAIN),
    ("/path", PLAIN),
    ("example.com", PLAIN),
    ("127.0.0.1", PLAIN),
    ("", PLAIN),
    ("https", PLAIN),
    (f"https://example.com/{'x' * 2029}", PLAIN),  # 2049 characters
]

#: URLs that are fine, and what is made of them.
ACCEPTED = [
    ("https://example.com", ("https", "example.com", 443, "/")),
    ("HTTPS://Example.COM/A?b=c#d", ("https", "example.com", 443, "/A?b=c")),
    ("https://example.com?x", ("https", "example.com", 443, "/?x")),
    ("https://example.com#x", ("https", "example.com", 443, "/")),
    ("https://example.com/#@127.0.0.1/", ("https", "example.com", 443, "/")),
    ("https://example.com?@127.0.0.1/", ("https", "example.com", 443, "/?@127.0.0.1/")),
    ("https://example.com/@127.0.0.1/", ("https", "example.com", 443, "/@127.0.0.1/")),
    ("https://example.com//127.0.0.1/", ("https", "example.com", 443, "//127.0.0.1/")),
    ("https://example.com/a/../b;c=%2F?d=[e]|f", ("https", "example.com", 443, "/a/../b;c=%2F?d=[e]|f")),
    ("https://example.com:443/", ("https", "example.com", 443, "/")),
    ("https://example.com:00443/", ("https", "example.com", 443, "/")),
    ("https://8.8.8.8/", ("https", "8.8.8.8", 443, "/")),
    ("https://100.63.255.255/", ("https", "100.63.255.255", 443, "/")),
    ("https://172.32.0.1/", ("https", "172.32.0.1", 443, "/")),
    ("https://223.255.255.255/", ("https", "223.255.255.255", 443, "/")),
    ("https://[2606:4700::1111]/", ("https", "[2606:4700::1111]", 443, "/")),
    ("https://[2606:4700::ABCD]/", ("https", "[2606:4700::abcd]", 443, "/")),
    ("https://[2001:200::1]/", ("https", "[2001:200::1]", 443, "/")),
    ("https://xn--bcher-kva.example/", ("https", "xn--bcher-kva.example", 443, "/")),
    ("https://web1/", ("https", "web1", 443, "/")),
    ("https://s3.example.c0m/", ("https", "s3.example.c0m", 443, "/")),
    ("https://0x7f.example/", ("https", "0x7f.example", 443, "/")),
    ("https://127.0.0.1.example.com/", ("https", "127.0.0.1.example.com", 443, "/")),
    ("https://my_service.a-b.example/", ("https", "my_service.a-b.example", 443, "/")),
    (f"https://{'a' * 63}.example/", ("https", f"{'a' * 63}.example", 443, "/")),
    (f"https://example.com/{'x' * 2028}", ("https", "example.com", 443, f"/{'x' * 2028}")),
]

#: Names that are well formed, what the DNS answers, look-up by look-up, and whether the first answer is refused.
NAMES: dict[str, tuple[list[list[str]], bool]] = {
    "public.test": ([["8.8.8.8"]], False),
    "both.test": ([["8.8.8.8", "2606:4700::1111"]], False),
    "loopback.test": ([["127.0.0.1"]], True),
    "private.test": ([["10.0.0.1"]], True),
    "shared.test": ([["100.100.100.200"]], True),
    "metadata.test": ([["169.254.169.254"]], True),
    "any.test": ([["0.0.0.0"]], True),
    "agent.test": ([["168.63.129.16"]], True),
    "group.test": ([["224.0.0.1"]], True),
    "loopback6.test": ([["::1"]], True),
    "unique.test": ([["fd00::1"]], True),
    "link.test": ([["fe80::1"]], True),
    "site.test": ([["fec0::1"]], True),
    "mapped.test": ([["::ffff:10.0.0.1"]], True),
    "mapped-public.test": ([["::ffff:8.8.8.8"]], True),
    "compatible.test": ([["::10.0.0.1"]], True),
    "nat64.test": ([["64:ff9b::a00:1"]], True),
    "nat64-local.test": ([["64:ff9b:1::a00:1"]], True),
    "6to4.test": ([["2002:a00:1::1"]], True),
    "teredo.test": ([["2001::1"]], True),
    "mixed.test": ([["8.8.8.8", "10.0.0.1"]], True),
    "mixed6.test": ([["8.8.8.8", "::1"]], True),
    "last.test": ([["8.8.8.8"] * 9 + ["127.0.0.1"]], True),
    "nowhere.test": ([[]], True),
    "rebinds.test": ([["8.8.8.8"], ["127.0.0.1"]], False),
    "rebinds-public.test": ([["127.0.0.1"], ["8.8.8.8"]], True),
}

#: Where an answer of https://public.test/a/b may redirect, and what is made of it: a URL, or why it is refused.
REDIRECTS = [
    ("/c", ("https", "public.test", 443, "/c")),
    ("c?d", ("https", "public.test", 443, "/a/c?d")),
    ("../../../c", ("https", "public.test", 443, "/c")),
    ("?c", ("https", "public.test", 443, "/a/b?c")),
    ("//both.test/", ("https", "both.test", 443, "/")),
    ("https://both.test", ("https", "both.test", 443, "/")),
    ("http://public.test/", ("http", "public.test", 80, "/")),  # refused by `judge`, as each hop is
    ("//127.0.0.1/", ("https", "127.0.0.1", 443, "/")),
    ("https://169.254.169.254/latest/meta-data/", ("https", "169.254.169.254", 443, "/latest/meta-data/")),
    ("https://[::1]/", ("https", "[::1]", 443, "/")),
    ("https://loopback.test/", ("https", "loopback.test", 443, "/")),
    ("https://rebinds-public.test/", ("https", "rebinds-public.test", 443, "/")),
    ("//2130706433/", FORM),
    ("https://127.1/", FORM),
    ("//user@127.0.0.1/", PLAIN),
    ("https://public.test@127.0.0.1/", PLAIN),
    ("file:///etc/passwd", PLAIN),
    ("gopher://127.0.0.1:6379/_x", PLAIN),
    ("https:", ("https", "public.test", 443, "/a/b")),
    ("", "no URL"),
    ("\\\\127.0.0.1\\", "no URL"),
    ("/\\127.0.0.1/", "no URL"),
    ("//[", "no URL"),
    ("https://127.0.0.1\t/", "no URL"),
    ("https://éxample.com/", "no URL"),
    (" //127.0.0.1/", "no URL"),
    ("/" + "x" * 2048, "no URL"),
]  # fmt: skip

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
    allowed = outbound.networks("10.0.0.0/8, ::1/128")
    destination = outbound.parse(url)
    if why is None:
        assert str(outbound.judge(destination, addresses, allowed)) == addresses[0]
        assert outbound.acceptable(url, allowed) == destination
    else:
        with pytest.raises(outbound.Refused, match=why):
            outbound.judge(destination, addresses, allowed)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "internal", "10.0.0.0/8;::1"])
def test_a_setting_that_names_no_networks(text: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits"):
        outbound.networks(text)


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
