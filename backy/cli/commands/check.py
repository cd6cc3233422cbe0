"""`backy check`: the state of all jobs, for monitoring."""

from pathlib import Path

import click

from backy.cli.options import configuration_option
from backy.cli.output import answer, chosen


@click.command("check")
@configuration_option
def command(configuration: Path) -> None:
    """Say whether all jobs keep their SLA, in the form of a Nagios check.

    Exit code 0 is OK; 1 WARNING, somebody should look at something; 2 CRITICAL, a job does not keep its SLA, somebody
    else than backy changed revisions, a backup failed as the disk is full, or the scheduler does not run; 3 UNKNOWN.
    This reads the scheduler's status file. The last lines have the end of each job's journal: kept elsewhere, they
    show later if one was written anew.
    """
    from backy.scheduler.monitoring.check import examine

    verdict = examine(configuration)
    content = {"state": verdict.state.name, **chosen(verdict, "summary", "performance", "details")}
    answer(content, *str(verdict).splitlines())
    # Not an `ExitCode`: Nagios gives these numbers other meanings.
    raise click.exceptions.Exit(verdict.state)
