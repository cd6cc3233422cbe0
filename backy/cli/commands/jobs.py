"""`backy jobs`: the state of all jobs, from the scheduler's status file."""

import logging
from pathlib import Path

import click

from backy.cli.options import configuration_option, wide_option
from backy.cli.output import answered, echo, width

log = logging.getLogger(__name__)


@click.command("jobs")
@configuration_option
@wide_option
@click.argument("pattern", metavar="[REGEX]", default="")
def command(configuration: Path, wide: bool, pattern: str) -> None:
    """List all jobs of the scheduler, or those whose name has a match of the regular expression REGEX.

    The list comes from the scheduler's status file: no scheduler has to run, and it may be some seconds old. If no
    scheduler keeps it up to date, the first line tells how old it is; with '--json', a warning does.
    """
    from backy.scheduler.console.jobtable import job_table, selected
    from backy.scheduler.monitoring.check import recorded

    found = recorded(configuration)
    jobs = selected(found.status.jobs, pattern)
    if answered({"jobs": jobs}):
        if found.doubt:
            log.warning("%s", found.doubt)
    else:
        if found.doubt:
            echo(found.doubt)
        echo(job_table(jobs, None if wide else width(), wide=wide), lines=True)
