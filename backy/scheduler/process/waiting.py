"""Waits for an event with a time limit."""

from __future__ import annotations

import asyncio
from datetime import timedelta


async def happened(event: asyncio.Event, within: timedelta) -> bool:
    """Wait until `event` is set or the time is over. Return whether it is set."""
    # The time limit is no error here: those who wait also want to look around now and then.
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await event.wait()
    except TimeoutError:
        return False
