"""`backy client`: commands for the running scheduler."""

from pathlib import Path

import click

from backy.cli.options import configuration_option
from backy.cli.output import answer
from backy.errors import BackyError


# Unknown options are words of COMMAND: a regular expression may begin with a dash.
@click.command("client", context_settings={"ignore_unknown_options": True})
@configuration_option
@click.argument("words", metavar="COMMAND [ARGUMENT]...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(configuration: Path, words: tuple[str, ...]) -> None:
    """Send COMMAND to the running scheduler and print its answer.

    'jobs [REGEX]' lists the jobs, 'status' counts them, 'run JOB' and 'runall' run some at once, 'pause JOB [--for
    TIME]' and 'resume JOB' keep one from running, 'reload' reads the configuration again. 'help' lists all commands.
    Only the owner of the scheduler may do that.
    """
    from backy.scheduler.configuration.configuration import load_location
    from backy.scheduler.process.base_directory import ask

    reply = ask(load_location(configuration).base_dir, words)
    if not reply.ok:
        raise BackyError(reply.text)
    content = reply.data if isinstance(reply.data, dict) else {"answer": reply.data}
    answer(content, *reply.text.splitlines())
