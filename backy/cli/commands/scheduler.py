"""`backy scheduler`: run all jobs when they are due."""

import sys
from pathlib import Path

import click

from backy.cli.options import configuration_option


@click.command("scheduler")
@configuration_option
def command(configuration: Path) -> None:
    """Back up all jobs of the configuration when they are due, until SIGTERM.

    Stays in the foreground. On SIGHUP it reads the configuration again. Every backup is an ordinary command that logs
    to 'backy.log' in the repository.
    """
    from backy.cli.logs import by_a_thread, is_verbose
    from backy.scheduler.daemon import serve

    # The children come from the same installation as this process, not from PATH.
    program = [sys.executable, str(Path(sys.argv[0]).absolute()), *(["-v"] if is_verbose() else [])]
    with by_a_thread():
        serve(configuration.absolute(), program)
