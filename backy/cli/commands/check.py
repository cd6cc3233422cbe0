"""`backy check`: the state of all jobs, for monitoring."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.options import configuration_option
from backy.cli.output import echo


@click.command("check")
@configuration_option
@click.pass_context
def command(context: click.Context, configuration: Path) -> None:
    """Say whether all jobs keep their SLA, in the form of a Nagios check.

    Exit code 0 is OK; 1 WARNING, somebody should look at something; 2 CRITICAL, a job does not keep its SLA, or the
    scheduler does not run; 3 UNKNOWN. This reads the scheduler's status file.
    """
    from backy.scheduler.monitoring.check import examine

    verdict = examine(configuration)
    echo(str(verdict))
    # Not an `ExitCode`: Nagios gives these numbers other meanings.
    context.exit(verdict.state)
