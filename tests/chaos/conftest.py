"""`./dev test --chaos[=full]`: one system for all scenarios, and the table at the end."""

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.invariants import ROWS, Observer
from tests.chaos.load import Load
from tests.chaos.rig import Rig
from tests.local import wait_until


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos", default="tenth", choices=["tenth", "full"])
    parser.addoption("--seed", type=int, default=1, help="what the random choices of the scenarios start from")
    parser.addoption("--count", type=float, help="a share of the full counts, instead of a tenth or all of them")


@pytest.fixture(scope="session")
def times(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """How often to do what the full suite does so many times."""
    share = request.config.getoption("--count")
    if share is None:
        share = 1.0 if request.config.getoption("--chaos") == "full" else 0.1
    return lambda full: max(1, round(full * share))


@pytest.fixture(scope="session")
def running_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("chaos"))
    yield rig
    rig.close()


@pytest.fixture
def rig(running_rig: Rig) -> Rig:
    """The system, healed of what the scenario before did to it."""
    for proxy in (running_rig.redis, running_rig.http):
        proxy.heal()
    for part in running_rig.parts.values():
        if part.down:
            part.start()
    wait_until(running_rig.ready, "the API is ready", 60)
    return running_rig


@pytest.fixture
def load(rig: Rig, request: pytest.FixtureRequest) -> Load:
    return Load(rig, request.config.getoption("--seed"))


@pytest.fixture
def observer(rig: Rig) -> Iterator[Observer]:
    with Observer(rig) as observer:
        yield observer


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    line = "{:<38}{:>7}{:>8}{:>7}{:>7}{:>7}{:>7}  {}".format
    terminalreporter.write_line(line("scenario", "faults", "jobs", "lost", "twice", "stuck", "extra", ""))
    for row in ROWS:
        values = (row.scenario, row.faults, row.jobs, row.lost, row.twice, row.stuck, row.extra, row.note)
        terminalreporter.write_line(line(*values))
