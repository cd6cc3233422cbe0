"""`backy check-config`: all problems of the scheduler's configuration."""

import re
from pathlib import Path

import click

from backy.cli.options import configuration_option
from backy.cli.output import answer
from backy.errors import ConfigError
from backy.text.phrases import counted

_FORMER = re.compile(r"source\.(backend|cow)\b|no source '(ceph|rbd)'|\.keep: .*, got 0$|^line \d+: (api|peers):")
"""Matches problems that files of backy 2 have."""


@click.command("check-config")
@configuration_option
def command(configuration: Path) -> None:
    """List all problems of the scheduler's configuration, each with its file and line.

    These include missing and broken plugins, settings that a plugin refuses, and what the machine lacks: the base
    directory, file systems on which a storage can work, programs, addresses. For this, a file is made in the base
    directory and removed. No source is touched.
    """
    from backy.scheduler.configuration.checking import check
    from backy.scheduler.configuration.document import ConfigurationError

    try:
        found, unknown = check(configuration)
    except ConfigurationError as error:
        problems = [problem.located(configuration) for problem in error.problems]
        answer({"problems": problems}, *problems)
        former = any(_FORMER.search(str(problem)) for problem in error.problems)
        hint = f"; 'backy upgrade --rewrite {configuration}' makes it one of backy 3" if former else ""
        raise ConfigError(f"{configuration} has {counted(len(error.problems), 'problem')}{hint}") from error
    parts = f"{counted(len(found.jobs), 'job')}, {counted(len(found.schedules), 'schedule')}"
    content = {"problems": [], "jobs": len(found.jobs), "schedules": len(found.schedules), "unknown": unknown}
    others = [f"not looked at, as this user may not: {what}" for what in unknown]
    answer(content, f"{configuration} is sound: {parts}", *others)
