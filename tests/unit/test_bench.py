"""What the benches make of their figures: rows, verdicts, the pages."""

import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import page, raw, report, scaling, system, table
from bench.__main__ import BENCHES, NAMED
from bench.measure import OURS, Measured, Row, compare, measure, quantile, row
from bench.models import Noop
from bench.peers.environment import CannotRun
from bench.plot import Curve, draw
from bench.report import Result
from bench.scaling import Cost, Costs, Scenario
from bench.walls import WALLS

FIGURES = {
    "api submit together": 100.0,
    "api submit alone": 1000.0,
    "api run alone": 1000.0,
    "api read together": 50.0,
    "postgres submit together": 50.0,
    "postgres submit alone": 500.0,
    "postgres run together": 100.0,
    "postgres run alone": 2000.0,
    "postgres beat": 100.0,
    "wal run alone": 4000.0,
    "valkey run alone": 100.0,
    "connections of a worker": 4.0,
    "connections of an api": 5.0,
}


def result(*rows: Row, quick: bool = False) -> Result:
    return Result("drain", "0" * 40, "a machine", {}, list(rows), [], {}, quick)


def one(ours: float, peer: float, **options: object) -> Row:
    given: dict[str, object] = {"reach": {"peer": 2.0}, "moonshot": {"peer": 4.0}} | options
    return row("a case", "jobs/s", Measured({OURS: [ours], "peer": [peer]}, {}), **given)  # type: ignore[arg-type]


def test_a_row_holds_medians_their_ratio_and_the_spread() -> None:
    found = row("a case", "jobs/s", Measured({OURS: [90.0, 100.0, 120.0], "peer": [8.0, 10.0, 11.0]}, {}))
    assert (found.ours, found.peers, found.ratio, found.runs) == (100.0, {"peer": 10.0}, {"peer": 10.0}, 3)
    assert found.spread == pytest.approx(0.3)
    assert found.peer_spread == {"peer": pytest.approx(0.3)}


def test_a_ratio_may_say_how_many_times_less() -> None:
    assert one(10, 1000, times_less=True).ratio == {"peer": 100.0}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (one(10, 10), "not reached"),
        (one(20, 10), "reached"),
        (one(40, 10), "moonshot"),
        (one(30, 10, better="lower", moonshot={"peer": 1.5}), "not reached"),
        (one(20, 10, better="lower", moonshot={"peer": 1.5}), "reached"),
        (one(15, 10, better="lower", moonshot={"peer": 1.5}), "moonshot"),
        (one(15, 10, reach={}), ""),
    ],
)
def test_a_verdict_compares_the_ratio_with_its_figures(found: Row, verdict: str) -> None:
    assert table.verdict(found, "peer") == verdict


def test_a_peer_that_cannot_run_is_named_and_has_no_ratio() -> None:
    def cannot() -> float:
        raise CannotRun("could not be installed: no such version")

    found = compare("a case", "jobs/s", lambda: 5.0, {"peer": cannot, "other": lambda: 1.0}, runs=2, reach={"peer": 2})
    assert (found.peers, found.ratio) == ({"other": 1.0, "peer": None}, {"other": 5.0, "peer": None})
    assert table.verdict(found, "peer") == "not measured"
    shown = table.terminal([result(found)])
    assert "peer is not measured: could not be installed: no such version" in shown
    assert table.verdict_line([result(found)]).endswith("not measured: drain (a case)")


def test_both_sides_run_in_turn() -> None:
    ran: list[str] = []
    measure("x", lambda: ran.append("a"), {"b": lambda: ran.append("b")}, 2, str)
    assert ran == ["a", "b", "a", "b"]


def test_the_raw_loop_fetches_what_its_device_has_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    def fetched(results: Any) -> Any:
        did.append("fetch")
        return results

    staging = SimpleNamespace(
        placed=lambda value, device: value, settle=lambda device: did.append(f"settle {device}"), fetched=fetched
    )
    monkeypatch.setattr(raw, "staging", staging)
    assert raw._Loop(Noop, "cuda:0").run([b"1", b"2"]) == [b"1", b"2"]
    assert did == ["settle cuda:0", "fetch"]


def test_the_last_line_says_which_rows_reach_their_figures() -> None:
    found = [replace(one(each, 10), case=name) for name, each in (("fast", 20), ("slow", 10))]
    line = table.verdict_line([result(*found)])
    assert line == "reach their figure: drain (fast); do not: drain (slow); not measured: none"


def test_a_quick_run_has_no_verdict() -> None:
    found = result(one(40, 10), quick=True)
    assert "moonshot" not in [line.verdict for line in table.lines([found])]
    assert "nothing is measured" in table.verdict_line([found])


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [float(each) for each in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([7.0], 0.99)) == (51.0, 100.0, 7.0)


@pytest.mark.skipif(sys.platform != "linux", reason="there a tick is as fine")
def test_the_cpu_of_a_process_is_told_finer_than_in_ticks() -> None:
    for _ in range(10):
        began, before = time.process_time(), system._cpu(os.getpid())
        while time.process_time() < began + 0.002:
            pass
        assert 0 < system._cpu(os.getpid()) - before <= time.process_time() - began


def test_each_bench_has_a_place_for_its_wall() -> None:
    assert set(WALLS) == {*BENCHES, *NAMED} - {"costs"}


@pytest.mark.parametrize("wall", WALLS.values(), ids=WALLS)
def test_a_wall_tells_shares_and_no_seconds_of_another_hour(wall: str) -> None:
    assert not re.search(r"\d (us|s)\b", wall)


@pytest.mark.parametrize("name", page.PAGES)
def test_the_pages_show_what_the_results_hold(name: str) -> None:
    text = (page.DOCS / name).read_text()
    assert page.page(name, text, report.results()) == text


def test_the_pages_show_a_curve_that_is_drawn(tmp_path: Path) -> None:
    curve = Curve("x", "how it grows", "x", "y", [1.0, 2.0], {"Tundish": [1.0, 2.0]}, log=True)
    draw(curve, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert "![how it grows](../bench/results/x.png)" in page.performance([replace(result(), curves=[curve])])


def test_each_curve_of_the_results_is_drawn() -> None:
    names = [curve.name for each in report.results() for curve in each.curves]
    assert {path.stem for path in report.RESULTS.glob("*.png")} == set(names)


def test_a_job_shares_with_its_group_what_it_would_pay_alone() -> None:
    cost = Cost(together=10, alone=110)
    assert [cost.of(group) for group in (0.5, 1, 2, 100)] == [110, 110, 60, 11]
    assert Cost(together=10, alone=5).of(1) == 10


def test_a_day_has_the_scenarios_mean_and_peak() -> None:
    scenario = Scenario(jobs_a_day=86_400_000, peak=3)
    day = scaling.day(scenario)
    assert sum(day) / len(day) == pytest.approx(1000)
    assert max(day) == pytest.approx(3000, rel=1e-3)


def test_batches_grow_as_the_gpus_fill() -> None:
    scenario = Scenario(gpus=10, gpu_seconds=0.1, full_batch=16)
    assert [scaling.batch(scenario, rate) for rate in (0, 50, 90, 200)] == pytest.approx([1, 2, 10, 16])
    assert scaling.batch(scenario, 50, gpus=0.5) == 16


def test_a_part_carries_what_fills_it_as_far_as_is_planned() -> None:
    part = scaling.Part("x", scaling.CORE, lambda rate: 100 * rate, "")
    assert part.carries() == pytest.approx(6000, rel=1e-3)
    assert [part.needed(rate) for rate in (1, 5999, 6001)] == [1, 1, 2]
    assert scaling.Part("full", 10, lambda rate: 7.0, "").carries() == 0


def test_what_gpus_cannot_take_waits_and_is_done_later() -> None:
    scenario = Scenario(jobs_a_day=86_400_000, peak=1.5, gpus=320, gpu_seconds=0.2, outage_minutes=30)
    usual, outage = scaling.simulate(scenario, outage=False), scaling.simulate(scenario, outage=True)
    assert max(each.backlog for each in usual) == 0
    # 1,500 come and 800 go, for half an hour.
    assert max(each.backlog for each in outage) == pytest.approx(700 * 60 * 30, rel=0.02)
    assert outage[-1].backlog == 0
    assert scaling.gone_after(usual) == 0
    assert scaling.gone_after(outage) > 30
    for minutes in (usual, outage):
        assert sum(each.arrive for each in minutes) == pytest.approx(sum(each.end for each in minutes))


def test_the_plan_names_what_is_full_first() -> None:
    costs = Costs(FIGURES)
    few = {each.name: each for each in scaling.parts(costs, Scenario(gpus=50))}
    many = {each.name: each for each in scaling.parts(costs, Scenario(gpus=1000))}
    assert few["Postgres, connections"].carries() > 0
    assert many["Postgres, connections"].carries() == 0
    assert many["Postgres, CPU"].demand(1000) > few["Postgres, CPU"].demand(1000)  # heart-beats, and smaller batches
    shown = scaling.report(costs, Scenario())
    assert "Postgres, connections   too many already" in shown
    assert "The first to be full as the load grows: API process" in shown
