"""`backy scheduler`: run what is due, for ever."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from backy.cli.options import configuration_option


@click.command("scheduler")
@configuration_option
def command(configuration: Path) -> None:
    """Back up all jobs of the configuration when they are due, until SIGTERM.

    Stays in the foreground. SIGHUP lets it read the configuration again. Every backup is an ordinary command that logs
    to 'backy.log' in the repository.
    """
    from backy.cli.logs import by_a_thread, is_verbose
    from backy.scheduler.configuration.configuration import load
    from backy.scheduler.daemon import Daemon
    from backy.scheduler.monitoring.status import known_before
    from backy.scheduler.process.base_directory import BaseDirectory
    from backy.scheduler.process.systemd import Notifier

    program = [sys.executable, str(Path(sys.argv[0]).absolute()), *(["-v"] if is_verbose() else [])]
    notifier = Notifier.from_environment()
    with by_a_thread():
        found = load(configuration.absolute())
        with BaseDirectory.held(found.settings.base_dir) as base:
            before = known_before(found.status_file)

            async def schedule() -> None:
                await Daemon(found, base, program, notifier).run(before)

            asyncio.run(schedule())
