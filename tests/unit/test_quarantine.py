"""How long a worker without a device waits, as one process after another."""

from uuid import UUID

from workers.quarantine import LEFT, WAIT, Quarantine


def test_it_waits_longer_each_time_under_the_same_id() -> None:
    environment: dict[str, str] = {}
    stays = [Quarantine.of(environment)]
    for _ in range(6):
        environment |= stays[-1].next()
        stays.append(Quarantine.of(environment))
        assert LEFT not in environment
    assert [each.wait for each in stays] == [30, 60, 120, 240, 480, 600, 600]
    assert len({each.worker for each in stays}) == 1


def test_a_worker_that_was_in_none_is_new() -> None:
    first, second = Quarantine.of({}), Quarantine.of({})
    assert first.wait == WAIT[0]
    assert isinstance(first.worker, UUID)
    assert first.worker != second.worker
