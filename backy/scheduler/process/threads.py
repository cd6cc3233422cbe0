"""Waits no longer than it wants: for events, and for functions that may hang, as on a network file system.

Such a function is called in a thread that neither others nor the end wait for.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from threading import Thread
from typing import Any, TypeVar

from backy.errors import BackyError

Returned = TypeVar("Returned")


class HangingError(BackyError):
    """A function took too long, and may never return."""

    def __init__(self, limit: timedelta) -> None:
        super().__init__(f"nothing came for {limit}, as from a network file system that hangs")


async def aside(
    function: Callable[..., Returned],
    *arguments: Any,  # noqa: ANN401  # those of the function
    limit: timedelta | None = None,
) -> Returned:
    """Call a function in a thread of its own, and return what it returns.

    Raises:
        HangingError: it takes longer than `limit`; its thread is left behind.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Returned] = loop.create_future()

    def tell(settle: Callable[..., None], result: object) -> None:
        if not outcome.done():  # nobody waits any more
            settle(result)

    def work() -> None:
        settle: Callable[..., None] = outcome.set_result
        try:
            result: object = function(*arguments)
        except BaseException as error:  # noqa: BLE001  # it is raised below
            settle, result = outcome.set_exception, error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, settle, result)

    # Not one of a pool: those that hang would leave none to others. A daemon: the process ends without it.
    Thread(target=work, daemon=True).start()
    try:
        if limit and not (await asyncio.wait([outcome], timeout=limit.total_seconds()))[0]:
            raise HangingError(limit)
        return await outcome
    finally:
        outcome.cancel()


async def happened(event: asyncio.Event, within: timedelta) -> bool:
    """Wait until `event` is set or the time is over. Return whether it is set."""
    # The time limit is no error here: those who wait also want to look around now and then.
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await event.wait()
    except TimeoutError:
        return False
