"""`backy check-config`: what is wrong with the scheduler's configuration."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.options import configuration_option
from backy.errors import ConfigError
from backy.text.phrases import counted


@click.command("check-config")
@configuration_option
def command(configuration: Path) -> None:
    """Say all that is wrong with the scheduler's configuration, each with its file and line.

    That includes plugins that are missing or broken, and what plugins do not like about the jobs that use them. Nothing
    is changed, and no source is touched.
    """
    from backy.scheduler.configuration.configuration import ConfigurationError, examine
    from backy.scheduler.configuration.plugins import PluginCheck

    try:
        found, problems = examine(configuration)
        problems = sorted([*problems, *PluginCheck(found).problems()])
    except ConfigurationError as error:
        problems = list(error.problems)
    for problem in problems:
        click.echo(f"{configuration}:{problem.line}: {f'{problem.key}: ' if problem.key else ''}{problem.message}")
    if problems:
        raise ConfigError(f"{configuration} has {counted(len(problems), 'problem')}")
    click.echo(
        f"{configuration} is sound: {counted(len(found.jobs), 'job')}, {counted(len(found.schedules), 'schedule')}"
    )
