"""What is ended ends, whatever becomes of a cancel on its way."""

import asyncio

from tundish import tasks


def test_a_task_that_swallows_a_cancel_is_cancelled_again() -> None:
    swallowed: list[asyncio.CancelledError] = []

    async def deaf() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                if swallowed:
                    raise
                swallowed.append(error)

    async def broken() -> None:
        raise RuntimeError

    async def run() -> list[asyncio.Task[None]]:
        running = [asyncio.create_task(each()) for each in (deaf, broken)]
        await asyncio.sleep(0)
        await tasks.end(running)
        return running

    first, second = asyncio.run(asyncio.wait_for(run(), 10))
    assert (first.cancelled(), len(swallowed)) == (True, 1)
    assert isinstance(second.exception(), RuntimeError)
