"""The scaling policy, and its replay over traces that a hand can work out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundish import command
from tundish.command.scale_sim import moments, service_times
from tundish.replay import Moment, Replayed, Terms, replay
from tundish.scaling import Load, Policy, suggested


def load(
    backlog: int = 0,
    age: float = 0.0,
    arrival: float = 0.0,
    awake: bool = True,
    job_s: float | None = 0.8,
    replicas: int = 0,
) -> Load:
    return Load(backlog, age, arrival, awake, job_s, replicas)


@pytest.mark.parametrize(
    ("what", "wanted"),
    [
        (load(awake=False), 0),
        (load(awake=False, replicas=3), 0),
        (load(), 1),  # lately something arrived
        (load(backlog=1, awake=False), 1),  # something waits
        (load(arrival=2.0), 2),  # 2 jobs/s of 0.8 s, at 80 %
        (load(arrival=2.1), 3),
        (load(backlog=30), 1),  # 30 jobs in 30 s
        (load(backlog=300), 10),
        (load(backlog=300, arrival=2.0), 12),
        (load(backlog=300, age=15), 20),  # half of the target is gone
        (load(backlog=300, age=1000), 40),  # late already: in a quarter of the target
        (load(backlog=300, job_s=None), 1),  # nothing measured yet: one, and then we know
        (load(backlog=300, job_s=None, replicas=4), 4),
    ],
)
def test_the_replicas_that_a_load_wants(what: Load, wanted: int) -> None:
    assert suggested(what, Policy(target_wait=30.0)) == wanted


def test_a_policy_has_bounds() -> None:
    assert suggested(load(awake=False), Policy(least=2)) == 2
    assert suggested(load(backlog=10_000), Policy(most=5)) == 5


STEADY = Policy(target_wait=30.0, least=1, most=1)


def test_one_replica_serves_one_job_after_the_other() -> None:
    ran = replay([0.0, 0.0, 1.0], [2.0], STEADY, Terms(every=10.0, hourly=3600.0))
    assert ran.waits == [0.0, 2.0, 3.0]
    assert (ran.wait(0.5), ran.wait(0.99), ran.most) == (2.0, 3.0, 1)
    # The last ends at 6; the autoscaler's look at 10 finds nothing to do. Ten seconds of one replica at 1 a second.
    assert (ran.seconds, ran.replica_s, ran.cost, ran.mean) == (10.0, 10.0, 10.0, 1.0)
    assert ran.line == [Moment(0.0, 1, 1), Moment(10.0, 0, 1)]


def test_service_times_are_taken_in_turn() -> None:
    assert replay([0.0] * 4, [1.0, 3.0], STEADY, Terms()).waits == [0.0, 1.0, 4.0, 5.0]


def test_from_zero_a_job_waits_for_a_start_up_and_the_pool_returns_to_zero() -> None:
    terms = Terms(start_up=20.0, cool_down=60.0, every=10.0, hourly=3600.0)
    ran = replay([0.0], [5.0], Policy(), terms)
    assert (ran.waits, ran.most) == ([20.0], 1)
    # It is quiet for 300 s after the arrival: the look at 310 first wants none. That of 300 wanted one, until 360.
    assert ran.line[-1] == Moment(360.0, 0, 0)
    assert (ran.seconds, ran.replica_s) == (360.0, 360.0)


def test_a_burst_scales_up_once_and_down_after_the_cool_down() -> None:
    terms = Terms(start_up=0.0, cool_down=30.0, every=10.0)
    ran = replay([0.0] * 8, [10.0], Policy(target_wait=10.0, least=1, most=4), terms)
    # One works at once; the look finds 7 waiting and wants 10, has 4: the next three start, and so on by fours.
    assert ran.waits == [0.0, 0.0, 0.0, 0.0, 10.0, 10.0, 10.0, 10.0]
    assert ran.most == 4
    assert ran.line[-1].replicas == 1


def test_a_replica_that_is_not_needed_any_more_ends_with_its_job() -> None:
    terms = Terms(start_up=0.0, cool_down=0.0, every=10.0, hourly=3600.0)
    ran = replay([0.0, 0.0], [35.0, 5.0], Policy(target_wait=1.0, least=0, most=2), terms)
    assert ran.waits == [0.0, 0.0]
    # The short job's replica goes at the look of 10, the long one's after the quiet: 10 + 310 seconds are paid.
    assert (ran.replica_s, ran.seconds) == (320.0, 310.0)


def test_an_empty_trace_costs_nothing() -> None:
    assert replay([], [1.0], Policy(), Terms()) == Replayed([], 0.0, 0.0, 0, 0.0, [])


@given(
    st.lists(st.floats(0, 500), min_size=1, max_size=60).map(sorted),
    st.lists(st.floats(0.1, 40), min_size=1, max_size=4),
    st.integers(0, 2),
    st.floats(0, 100),
)
def test_every_job_starts_and_the_pool_ends_at_its_least(
    arrivals: list[float], service: list[float], least: int, start_up: float
) -> None:
    policy, terms = Policy(target_wait=20.0, least=least, most=5), Terms(start_up=start_up)
    ran = replay(arrivals, service, policy, terms)
    assert len(ran.waits) == len(arrivals)
    assert all(wait >= 0 for wait in ran.waits)
    assert least <= ran.most <= 5
    assert (ran.line[-1].waiting, ran.line[-1].replicas) == (0, least)
    assert ran.replica_s >= sum(service[place % len(service)] for place in range(len(arrivals))) - 1e-6


def test_a_trace_is_moments_or_counts() -> None:
    assert moments("t", [["30"], ["10"], ["10.5"]]) == [0.0, 0.5, 20.0]
    assert moments("t", [["2026-01-31T12:00:00Z"], [], ["2026-01-31T12:00:30+00:00"]]) == [0.0, 30.0]
    assert moments("t", [["seconds", "count"], ["60", "2"], ["120", "0"], ["180", "3"]]) == [
        0.0,
        30.0,
        120.0,
        140.0,
        160.0,
    ]
    assert moments("t", [["5", "2"]]) == [0.0, 0.5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no arrival"),
        ([["seconds", "count"]], "holds no arrival"),
        ([["1"], ["soon"]], "line 2: 'soon' is no moment"),
        ([["1", "2", "3"]], "line 1"),
        ([["1", "-2"]], "line 1"),
        ([["nan", "x"], ["1", "x"]], "line 2"),
        ([["2", "1"], ["1", "1"]], "must rise"),
        ([["0"], ["1", "500"]], "line 2: '1,500' is not of the kind of the lines before it"),
        ([["0", "500"], ["1"]], "line 2: '1' is not of the kind"),
    ],
)
def test_a_trace_that_cannot_be_read(rows: list[list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moments("t", rows)


def test_service_times_are_a_number_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "times").write_text("0.5\n0.25\n")
    assert service_times("0.125") == [0.125]
    assert service_times(str(tmp_path / "times")) == [0.5, 0.25]
    (tmp_path / "times").write_text("0.5\n0\n")
    for wrong in ("0", "-1", str(tmp_path / "times")):
        with pytest.raises(ValueError, match="seconds over 0"):
            service_times(wrong)


def test_the_command_prints_cost_waits_and_replicas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("0\n0\n1\n")
    fixed = ["--min", "1", "--max", "1", "--every", "10", "--cost-per-hour", "3600"]
    assert command.main(["scale-sim", str(trace), "2", *fixed]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "3 jobs, 2 s each, over 10 s"
    assert said[2].split() == "30 s 10.00 2.00 s 3.00 s 3.00 s 1.00 1".split()
    assert [line.split() for line in said[4:]] == [["0", "1", "1", "#"], ["10", "0", "1", "#"]]
    assert command.main(["scale-sim", str(trace), "2", *fixed, "--target-wait", "5", "50"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["5", "50"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.csv", "1"], "none.csv"),
        (["trace.csv", "none"], "none"),
        (["trace.csv", "1", "--max", "0"], "--max is 1 or more"),
        (["trace.csv", "1", "--every", "0"], "seconds over 0"),
        (["trace.csv", "1", "--start-up", "-1"], "--start-up is a number from 0"),
        (["trace.csv", "1", "--every", "1e-9"], "over 5,000,000 looks"),
        (["trace.csv", "1e300"], "over 5,000,000 looks"),
        (["long.csv", "1"], "long.csv: field larger than field limit"),
    ],
)
def test_what_the_command_cannot_use_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trace.csv").write_text("1\n")
    Path("long.csv").write_text("1" * 200_000)
    assert command.main(["scale-sim", *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tundish: ")
    assert message in line
