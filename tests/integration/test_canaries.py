"""No URL of the guard's table reaches a listener on a loopback, private or metadata address, by fetch or by webhook.

In a network namespace of its own, where every address is one of this machine's and is listened on.
"""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.canary import ORIGIN, PORTS
from tests.local import TREE
from tests.unit.outbound_vectors import NAMES, REFUSED

Phases = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def phases(tmp_path_factory: pytest.TempPathFactory) -> Phases:
    """What `tests.integration.canary` saw. Skips where this machine allows no namespace."""
    for tool in ("unshare", "ip", "openssl", "mount"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no `{tool}` here, to make a network namespace")
    enter = ["unshare", "--net", "--mount", "--"]
    if os.geteuid():
        enter[1:1] = ["--user", "--map-root-user"]
    probe = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo && ip -6 route add local ::/0 dev lo"
    tried = subprocess.run([*enter, "sh", "-c", probe], capture_output=True, text=True, timeout=20)
    if tried.returncode:
        pytest.skip(f"this machine allows no network namespace: {tried.stderr.strip()}")
    folder = tmp_path_factory.mktemp("canary")
    ran = subprocess.run(
        [*enter, sys.executable, "-m", "tests.integration.canary", str(folder)],
        capture_output=True,
        text=True,
        cwd=TREE,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    found: Phases = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("way", ["fetch", "post"])
def test_no_url_and_no_name_of_the_table_reaches_anybody(phases: Phases, way: str) -> None:
    phase = phases[f"refused by {way}"]
    assert len(phase["said"]) >= len(REFUSED) + sum(refused for _, refused in NAMES.values())
    assert phase["reached"] == []
    assert not {"fetched", "sent"} & set(phase["said"].values())


def test_no_redirect_leads_inside(phases: Phases) -> None:
    phase = phases["redirects"]
    assert len(phase["reached"]) >= len(REFUSED)
    assert {address for address, _, _ in phase["reached"]} == {ORIGIN, "8.8.8.8"}  # both.test is public


def test_a_name_that_rebinds_at_a_redirect_is_refused_there(phases: Phases) -> None:
    phase = phases["rebinding at a redirect"]
    assert phase["reached"] == [["8.8.8.8", 443, "rebinds.test"]]
    assert phase["asked"] == {"rebinds.test": 2}
    [said] = phase["said"].values()
    assert "not public" in said


@pytest.mark.parametrize(("way", "done"), [("fetch", "fetched"), ("post", "sent")])
def test_a_public_name_is_reached_at_the_judged_address_by_its_name(phases: Phases, way: str, done: str) -> None:
    phase = phases[f"public by {way}"]
    assert set(phase["said"].values()) == {done}
    assert [["8.8.8.8", 443, name] for name in ("8.8.8.8", "public.test", "rebinds.test")] == [
        each for each in phase["reached"] if ":" not in each[0]
    ]
    assert phase["asked"] == {"public.test": 1, "rebinds.test": 1}  # a second answer would have been 127.0.0.1


@pytest.mark.parametrize(("way", "done"), [("fetch", "fetched"), ("post", "sent")])
def test_the_canaries_sing_where_their_networks_are_allowed(phases: Phases, way: str, done: str) -> None:
    phase = phases[f"allowed by {way}"]
    assert set(phase["said"].values()) == {done}
    reached = {address: port for address, port, _ in phase["reached"]}
    assert set(reached) == {"10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1", "64:ff9b::a00:1"}
    assert set(reached.values()) <= set(PORTS)
