from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from backy.scheduler.process.children import HangingError, aside


def test_a_function_returns_and_raises_through_its_thread() -> None:
    assert asyncio.run(aside(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(aside(divmod, 7, 0))

    def take_too_long() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        asyncio.run(aside(take_too_long, limit=timedelta(minutes=1)))


def test_neither_others_nor_the_end_wait_for_one_that_hangs() -> None:
    end = threading.Event()

    async def run() -> int:
        for _ in range(100):
            with pytest.raises(HangingError, match="nothing came for 0:00:00"):
                await aside(end.wait, limit=timedelta(milliseconds=1))
        return await aside(len, "others")

    assert asyncio.run(run()) == 6, "and the loop ends while all of them hang"
    end.set()


def test_who_gives_up_waiting_leaves_the_thread_behind() -> None:
    end = threading.Event()

    async def run() -> None:
        task = asyncio.create_task(aside(end.wait))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        end.set()

    asyncio.run(run())
