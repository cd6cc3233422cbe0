"""Reports the status of the scheduler: status file, metrics, systemd."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from backy.scheduler.configuration.configuration import Configuration
from backy.scheduler.monitoring import metrics, status
from backy.scheduler.monitoring.status import Status
from backy.scheduler.process import children
from backy.scheduler.process.systemd import Notifier
from backy.scheduler.process.threads import aside, happened
from backy.text.phrases import counted

log = logging.getLogger(__name__)
GATHER = timedelta(seconds=1)
"""Pause after a change before it is reported, as more changes follow often."""

PLUGINS_INTERVAL = timedelta(hours=1)
"""Pause between two searches for broken plugins."""

PLUGINS_LIMIT = timedelta(minutes=2)
"""Time limit of such a search."""


class Reporter:
    """Writes the status after each change, and at least once per status interval."""

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
        self._write_problem: str | None = None
        self._writing = asyncio.Lock()
        self.broken_plugins: tuple[str, ...] = ()

    def report(self) -> None:
        """Request that the status is written soon."""
        self._changed.set()

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """Return the coroutines to run concurrently until cancelled."""
        return [self._write_status(), self._look_for_broken_plugins(), self._keep_watchdog_calm()]

    async def write(self) -> None:
        """Write the current status."""
        # One at a time: two would take each other's temporary file, and an old state could replace a new one.
        async with self._writing:
            await self._write_current()

    async def _write_current(self) -> None:
        self._changed.clear()
        found = self._current()
        running = sum(pool.running for pool in found.pools.values())
        queued = sum(pool.queued for pool in found.pools.values())
        self._notifier.tell(f"STATUS={counted(len(found.jobs), 'job')}, {running} running, {queued} waiting for a slot")
        # The status is complete here, as only the loop may look at jobs; encoding and writing it takes long.
        await aside(self._write, self._configuration(), found)

    async def _write_status(self) -> None:
        while True:
            if await happened(self._changed, self._interval()):
                await asyncio.sleep(GATHER.total_seconds())
            await self.write()

    def _write(self, configuration: Configuration, found: Status) -> None:
        """Write the files. Log an error once, and again only after a success or if it is another one."""
        try:
            status.write(configuration.settings.status_path, msgspec.json.encode(found))
            if configuration.settings.metrics_file:
                status.write(configuration.settings.metrics_file, metrics.render(found).encode())
        except OSError as error:
            # A full disk must not stop the backups; `backy check` notices the old file.
            text = f"the status can not be written: {error}"
            if text != self._write_problem:
                log.error("%s", text)  # noqa: TRY400  # the cause says all
            self._write_problem = text
        else:
            self._write_problem = None

    async def _look_for_broken_plugins(self) -> None:
        """Search for broken plugins by the command `plugins --check`, until cancelled."""
        # In a process of its own: a plugin may have been changed, or may crash the process that loads it.
        while True:
            try:
                command = [*self._backy, "plugins", "--check", "--json"]
                _, printed = await children.output_of(command, limit=PLUGINS_LIMIT)
                listed = msgspec.json.decode(printed, type=list[dict[str, str | None]])
            except (OSError, children.TimeLimitError, msgspec.DecodeError) as error:
                cause = error or "'backy plugins --check' takes too long"
                log.warning("nobody knows which plugins are broken: %s", cause)
            else:
                self.broken_plugins = tuple(
                    f"{one['kind']} '{one['name']}' of {one['distribution']}: {one['cause']}"
                    for one in listed
                    if one["state"] == "failed"
                )
                self.report()
            await asyncio.sleep(PLUGINS_INTERVAL.total_seconds())

    async def _keep_watchdog_calm(self) -> None:
        """Reset the watchdog until cancelled."""
        # From the loop itself, so that it stops if the loop hangs; twice as often as needed, see sd_notify(3).
        while self._notifier.watchdog:
            self._notifier.tell("WATCHDOG=1")
            await asyncio.sleep(self._notifier.watchdog.total_seconds() / 2)
