"""Access to a running scheduler: the console and the socket of `backy client`, with the same commands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from backy.api import ConsoleCommand
from backy.errors import BackyError
from backy.plugins.broken import described
from backy.plugins.events import Events
from backy.scheduler.configuration.configuration import Configuration
from backy.scheduler.console import control
from backy.scheduler.console.commands import COMMANDS, Answer, Command, Scheduler, execute
from backy.scheduler.console.telnet import Console

log = logging.getLogger(__name__)
PLUGIN_LIMIT = timedelta(seconds=30)
"""How long a plugin's command may take."""


class Access:
    """Opens console and socket, and executes what operators ask for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._commands: Mapping[str, Command] = COMMANDS
        self._threads = ThreadPoolExecutor(4, "console-command")
        self._server: asyncio.Server | None = None
        self._may_change = True
        self._listens: tuple[tuple[str, ...], int] | None = None
        self.console = Console(self._answer_console)

    async def open(self, configuration: Configuration) -> None:
        """Open the socket and the console, and load the plugins' commands. Call it again after each reload.

        Only a console whose addresses have changed is opened again, so that a reload disconnects nobody.
        """
        settings = configuration.settings
        # Loading plugins takes long, and the loop has a watchdog to feed.
        offered = await asyncio.to_thread(_offered, configuration)
        added = {name: self._added(command) for name, command in offered.items()}
        for name in added.keys() & COMMANDS.keys():
            log.warning("the console has a command '%s' of its own; that of a plugin is left out", name)
        # Later entries win: no plugin can replace a command of backy.
        self._commands = {**added, **COMMANDS, "help": Command(self._help, "List the commands.")}
        if self._server is None:
            self._server = await control.serve(settings.base_dir, self._answer)
        self._may_change = not settings.telnet_read_only
        wanted = configuration.telnet_addresses, settings.telnet_port
        if self._listens != wanted:
            self._listens = wanted
            await self.console.listen(*wanted)

    def close(self) -> None:
        """Close console and socket."""
        self.console.close()
        if self._server:
            self._server.close()
        # A plugin's command that hangs must not keep the scheduler from stopping.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, words: Sequence[str]) -> Answer:
        """Execute a command that came through the socket."""
        # Only the owner of the scheduler can connect there, and may do everything.
        return await execute(self._commands, self._scheduler, words, may_change=True)

    async def _answer_console(self, words: Sequence[str]) -> str:
        """Execute a command that came through the console, and log it if it changes anything."""
        if any(command.changes for name, command in self._commands.items() if name == words[0]):
            log.info("console: %s", " ".join(words))
        return (await execute(self._commands, self._scheduler, words, may_change=self._may_change)).text

    async def _help(self, scheduler: Scheduler, arguments: Sequence[str]) -> Answer:
        usages = {f"{name} {command.arguments}".rstrip(): command.help for name, command in self._commands.items()}
        width = max(map(len, usages))
        return Answer("\n".join(f"{usage:{width}}  {text}" for usage, text in usages.items()), usages)

    def _added(self, command: ConsoleCommand) -> Command:
        """Wrap the command of a plugin: it runs in a thread and is given up after `PLUGIN_LIMIT`."""

        async def run(scheduler: Scheduler, arguments: Sequence[str]) -> Answer:
            work = asyncio.get_running_loop().run_in_executor(self._threads, command.run, list(arguments))
            try:
                async with asyncio.timeout(PLUGIN_LIMIT.total_seconds()):
                    text = str(await work)
            except TimeoutError:
                raise BackyError(f"'{command.name}' takes too long") from None
            except BackyError:
                raise
            except (Exception, SystemExit) as error:
                # A defect of a plugin ends its command, and neither the connection nor the scheduler.
                log.debug("this is where it happened:", exc_info=error)
                raise BackyError(f"'{command.name}' failed with {described(error)}") from error
            return Answer(text, text)

        return Command(run, command.help, "[ARGUMENT]...", changes=command.changes)


def _offered(configuration: Configuration) -> dict[str, ConsoleCommand]:
    """Return the commands that plugins offer."""
    with Events.installed(configuration.hook_sections) as events:
        return events.console_commands()
