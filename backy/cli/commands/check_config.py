"""`backy check-config`: all problems of the scheduler's configuration."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.options import configuration_option
from backy.cli.output import echo
from backy.errors import ConfigError
from backy.text.phrases import counted


@click.command("check-config")
@configuration_option
def command(configuration: Path) -> None:
    """List all problems of the scheduler's configuration, each with its file and line.

    These include missing and broken plugins, and job settings that a plugin refuses. Nothing is changed, and no source
    is touched.
    """
    from backy.scheduler.configuration.configuration import ConfigurationError
    from backy.scheduler.configuration.plugins import check

    try:
        found = check(configuration)
    except ConfigurationError as error:
        for problem in error.problems:
            key = f"{problem.key}: " if problem.key else ""
            # Editors and CI systems turn FILE:LINE: into a link.
            echo(f"{configuration}:{problem.line}: {key}{problem.message}")
        raise ConfigError(f"{configuration} has {counted(len(error.problems), 'problem')}") from error
    parts = f"{counted(len(found.jobs), 'job')}, {counted(len(found.schedules), 'schedule')}"
    echo(f"{configuration} is sound: {parts}")
