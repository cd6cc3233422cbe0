"""`backy jobs`: how the jobs are, as the scheduler has written it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from backy.cli.options import configuration_option
from backy.cli.output import print_json


@click.command("jobs")
@configuration_option
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects with all details.")
@click.argument("pattern", metavar="[REGEX]", default="")
def command(configuration: Path, as_json: bool, pattern: str) -> None:
    """List all jobs of the scheduler, or those whose name has a match of the regular expression REGEX.

    This reads the scheduler's status file, so it needs no scheduler that runs, and may be some seconds old.
    """
    from backy.scheduler.console.jobtable import job_table, recorded

    jobs = recorded(configuration, pattern)
    if as_json:
        print_json(jobs)
    else:
        click.echo(job_table(jobs, round_corners=sys.stdout.isatty()))
