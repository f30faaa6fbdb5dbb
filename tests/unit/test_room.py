"""Room for bytes: who waits, in what order, and what becomes of one who gives up."""

import asyncio

from workers.room import Room


def test_who_waits_is_served_in_order_and_nobody_passes() -> None:
    async def run() -> list[str]:
        room, served = Room(10), list[str]()

        async def wait(name: str, size: int) -> None:
            await room.wait(size)
            served.append(name)

        assert room.take(8)
        waiting = [asyncio.create_task(wait(name, size)) for name, size in (("large", 9), ("small", 1))]
        await asyncio.sleep(0)
        assert not room.take(1), "it would pass those in line"
        room.give(8)
        await asyncio.gather(*waiting)
        assert not room.take(1)
        return served

    assert asyncio.run(run()) == ["large", "small"]


def test_one_who_gives_up_takes_nothing_along() -> None:
    async def run() -> None:
        room = Room(10)
        assert room.take(10)
        first, second = (asyncio.create_task(room.wait(10)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        room.give(10)
        await second
        room.give(10)
        assert room.take(10)

    asyncio.run(asyncio.wait_for(run(), 10))


def test_what_is_larger_than_all_of_it_is_given_all_of_it() -> None:
    async def run() -> None:
        room = Room(10)
        assert room.take(25)
        assert not room.take(1)
        room.give(25)
        assert room.take(10)

    asyncio.run(run())
