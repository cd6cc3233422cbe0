"""Tells others how the scheduler is: the status file, metrics, systemd."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from backy.scheduler import children, metrics, status
from backy.scheduler.config import Configuration
from backy.scheduler.notify import Notifier
from backy.scheduler.status import Status
from backy.scheduler.waiting import happened
from backy.text.phrases import counted

log = logging.getLogger(__name__)
GATHER = timedelta(seconds=1)
"""How long to wait after a change for others, before it is told."""

PLUGINS_INTERVAL = timedelta(hours=1)
"""How often is looked for broken plugins."""

PLUGINS_LIMIT = timedelta(minutes=2)
"""How long that may take."""


class Reporter:
    """Writes the status whenever something has changed, and every status interval."""

    def __init__(
        self,
        current: Callable[[], Status],
        configuration: Callable[[], Configuration],
        interval: Callable[[], timedelta],
        backy: Sequence[str],
        notifier: Notifier,
    ) -> None:
        self._current = current
        self._configuration = configuration
        self._interval = interval
        self._backy = backy
        self._notifier = notifier
        self._changed = asyncio.Event()
        self._plugins_may_have_changed = asyncio.Event()
        self._trouble: str | None = None
        self.broken_plugins: tuple[str, ...] = ()

    def report(self) -> None:
        """Let the status be written soon."""
        self._changed.set()

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """Return what is to be done at the same time, for ever."""
        return [self._write_status(), self._look_for_broken_plugins(), self._keep_watchdog_calm()]

    async def write(self) -> None:
        """Tell how it is now."""
        self._changed.clear()
        found = self._current()
        running = sum(pool.running for pool in found.pools.values())
        queued = sum(pool.queued for pool in found.pools.values())
        self._notifier.status(f"{counted(len(found.jobs), 'job')}, {running} running, {queued} waiting for a slot")
        await asyncio.to_thread(self._write, self._configuration(), found)

    async def _write_status(self) -> None:
        while True:
            if await happened(self._changed, self._interval()):
                await asyncio.sleep(GATHER.total_seconds())
            await self.write()

    def _write(self, configuration: Configuration, found: Status) -> None:
        """Write the files; what can not be written is told once."""
        try:
            status.write(configuration.status_file, msgspec.json.encode(found))
            if configuration.settings.metrics_file:
                status.write(configuration.settings.metrics_file, metrics.render(found).encode())
        except OSError as error:
            text = f"the status can not be written: {error}"
            if text != self._trouble:
                log.error("%s", text)  # noqa: TRY400  # the cause says all
            self._trouble = text
        else:
            self._trouble = None

    async def _look_for_broken_plugins(self) -> None:
        """Let the command `plugins` load all of them: this process has none, and each may have been changed."""
        while True:
            self._plugins_may_have_changed.clear()
            try:
                command = [*self._backy, "plugins", "--json"]
                _, printed = await children.output_of(command, limit=PLUGINS_LIMIT)
                listed = msgspec.json.decode(printed, type=list[dict[str, str | None]])
            except (OSError, children.TimeLimitError, msgspec.DecodeError) as error:
                log.warning("nobody knows which plugins are broken: %s", error or "'backy plugins' takes too long")
            else:
                self.broken_plugins = tuple(
                    f"{one['kind']} '{one['name']}' of {one['distribution']}: {one['cause']}"
                    for one in listed
                    if one["state"] == "failed"
                )
                self.report()
            await happened(self._plugins_may_have_changed, PLUGINS_INTERVAL)

    async def _keep_watchdog_calm(self) -> None:
        """Show systemd that the loop goes round, twice as often as it wants to know."""
        while self._notifier.watchdog:
            self._notifier.alive()
            await asyncio.sleep(self._notifier.watchdog.total_seconds() / 2)
