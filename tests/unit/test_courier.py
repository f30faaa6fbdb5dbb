"""The courier's loops: what they take and when, and how they end."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, Literal
from uuid import UUID

import pytest

from tundish import store
from workers.courier import ROWS, Courier
from workers.lanes import FIRST, SLOW_AT_ONCE, Kind
from workers.settle import Settler
from workers.verdict import Answer

A = UUID(int=1)
BAD = Answer(500)


class Bell(asyncio.Event):
    """Tells when somebody listens."""

    def __init__(self) -> None:
        super().__init__()
        self.listened = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.listened.set()
        return await super().wait()


def test_a_stop_that_comes_with_the_bell_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing_is_due(*_: object, **__: object) -> store.Taken:
        return store.Taken([])

    async def run() -> None:
        nobody: Any = None
        courier = Courier(nobody, nobody, nobody)
        bell = courier._bells[Kind.FRESH] = Bell()
        loop = asyncio.create_task(courier._take(Kind.FRESH))
        await bell.listened.wait()
        bell.set()
        loop.cancel()
        await asyncio.wait([loop], timeout=10)
        assert loop.cancelled()

    monkeypatch.setattr(store, "run", nothing_is_due)
    asyncio.run(run())


def test_a_connection_to_redis_that_is_cut_ends_no_courier_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It shows as an error of the event loop where it is cut within a write."""
    cuts = [RuntimeError("the handler is closed"), ConnectionResetError()]

    class Cut:
        async def __aenter__(self) -> "Cut":
            return self

        async def __aexit__(self, *_: object) -> None:
            """Nothing is left."""

        async def subscribe(self, *_: object) -> None:
            if cuts:
                raise cuts.pop(0)

        async def get_message(self, **_: object) -> object:
            await asyncio.sleep(0)
            return {"data": b""}

    async def run() -> None:
        nobody: Any = None
        client: Any = SimpleNamespace(pubsub=lambda **_: Cut())
        courier = Courier(nobody, nobody, client)
        loop = asyncio.create_task(courier._listen())
        heard = asyncio.create_task(courier._bells[Kind.FRESH].wait())
        await asyncio.wait([loop, heard], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        loop.cancel()
        assert heard.done()

    monkeypatch.setattr("workers.courier.RETRY", 0.0)
    with caplog.at_level(logging.INFO, "workers.courier"):
        asyncio.run(run())
    waits, goes_on = caplog.messages
    assert "has to wait: they are found by looking, Redis does not answer: " in waits
    assert goes_on == "the notice of new webhooks goes on, after 0 s"


def test_lanes_have_their_turn_though_there_is_no_room_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [UUID(int=number) for number in range(1, 1000)]

    async def run() -> None:
        nobody: Any = None
        asked, first = asyncio.Queue[UUID](), asyncio.Event()

        class Hanging:
            async def send(self, due: store.Due) -> Answer:
                await (first if due.lane == lanes[0] else asyncio.Event()).wait()
                return BAD

        async def many_are_due(*_: object, after: UUID, others_limit: int, **given: Any) -> store.Taken:
            asked.put_nowait(after)
            rooms = [(lane, given["others"].get(lane, given["unknown"])) for lane in lanes if lane > after]
            due = [store.Due(lane, lane, None, "", b"", 0, "", [], True) for lane, room in rooms for _ in range(room)]
            page = due[:others_limit]
            return store.Taken(page, page[-1].lane if page else None)

        monkeypatch.setattr(store, "run", many_are_due)
        hanging: Any = Hanging()
        courier = Courier(nobody, hanging, nobody)
        bell = courier._bells[Kind.FRESH] = Bell()
        loop = asyncio.create_task(courier._take(Kind.FRESH))
        pages = [await asyncio.wait_for(asked.get(), 10) for _ in range(2)]
        await asyncio.wait_for(bell.listened.wait(), 10)  # it has looked once more, and found no room
        first.set()
        pages.append(await asyncio.wait_for(asked.get(), 10))
        loop.cancel()
        assert pages == [UUID(int=0), lanes[ROWS // FIRST - 1], lanes[SLOW_AT_ONCE[Kind.FRESH] // FIRST - 1]]

    asyncio.run(run())


def test_a_walk_that_finds_nothing_goes_on_where_it_stopped_and_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stops = [UUID(int=number) for number in (5, 9)]

    async def run() -> None:
        nobody: Any = None
        asked = asyncio.Queue[UUID]()

        async def none_is_due(*_: object, after: UUID, **__: object) -> store.Taken:
            asked.put_nowait(after)
            return store.Taken([], next((stop for stop in stops if stop > after), None))

        monkeypatch.setattr(store, "run", none_is_due)
        courier = Courier(nobody, nobody, nobody)
        bell = courier._bells[Kind.RETRIED] = Bell()
        loop = asyncio.create_task(courier._take(Kind.RETRIED))
        for after in (UUID(int=0), *stops, UUID(int=0)):
            assert await asyncio.wait_for(asked.get(), 10) == after
            if after != stops[-1]:  # there the walk has come round
                await asyncio.wait_for(bell.listened.wait(), 10)
                bell.listened.clear()
                bell.set()
        loop.cancel()

    asyncio.run(run())


def test_a_stop_ends_though_postgres_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written down is sent again."""

    async def is_away(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    async def run() -> None:
        nobody: Any = None
        courier, stopped = Courier(nobody, nobody, nobody), asyncio.Event()
        courier._settler.add(store.Settled(A, 0, "", "{}", "delivered"))
        stopped.set()
        await asyncio.wait_for(courier.run(stopped, 0.1), 10)

    monkeypatch.setattr(store, "run", is_away)
    monkeypatch.setattr("workers.courier.WRITE", 0.1)
    asyncio.run(run())


def test_an_endpoint_is_disabled_once_for_its_owner_may_enable_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    disabled = list[set[store.Gone]]()

    async def here(engine: object, verb: Any, *given: Any) -> None:
        verb(None, *given)

    monkeypatch.setattr(store, "run", here)
    monkeypatch.setattr(store, "settle", lambda connection, page: None)
    monkeypatch.setattr(store, "disable_endpoints", lambda connection, gone: disabled.append(gone))

    async def run() -> None:
        nobody: Any = None
        settler, settled = Settler(nobody), store.Settled(A, 0, "", "{}", "dead")
        settler.add(settled, store.Gone(A, "https://a.example"))
        await settler.write()
        settler.add(settled)
        await settler.write()

    asyncio.run(run())
    assert disabled == [{store.Gone(A, "https://a.example")}]
