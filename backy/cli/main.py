"""The program `backy`: its global options, its commands, and how each of them ends."""

import faulthandler
import logging
import os
import select
import shlex
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import partial, wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from backy.cli import output
from backy.cli.everywhere import options, replaced
from backy.cli.logs import logs_to_file, set_up_logging
from backy.cli.options import FILE, FOLDER
from backy.cli.usage import Group, told
from backy.errors import BackyError, ExitCode, PluginError, is_full
from backy.plugins import discovery
from backy.plugins.broken import BrokenPluginError, described, error_line
from backy.plugins.discovery import CORE_DISTRIBUTION, VARIABLE, Kind, Plugin, advertised, conflict, contenders
from backy.terminal.plain import painted, printable
from backy.text.phrases import did_you_mean

log = logging.getLogger(__name__)
EXTEND = "Extend, and what plugins add"
GROUPS = {
    "Back up": ["init", "backup", "status", "why", "diff"],
    "Restore": [
        *["restore", "plan", "mount", "unmount", "find", "files", "nbd-server", "attachments", "undelete", "drill"],
    ],
    "Look after": [
        *["tags", "forget", "expire", "purge", "accept", "verify", "scrub", "distrust", "reports", "audit"],
        *["convert", "release", "lock", "upgrade"],
    ],
    "Copy to another server": ["pull", "push", "serve", "promote"],
    "Run unattended": ["scheduler", "jobs", "check", "check-config", "client"],
    EXTEND: ["plugins", "selftest", "completion"],
}
"""The commands of `backy --help` by what they are for."""
SILENT = {"completion", "lock", "mount", "nbd-server", "restore", "scheduler", "selftest", "serve", "unmount"}
"""The commands that do not answer in JSON: they tell nothing, or while they run, or in a format of its own."""
VERSION = f"%(prog)s %(version)s, Python {sys.version.split()[0]}"
"""What `--version` prints, in the words of click."""
COMPLETION = "_BACKY_COMPLETE"
"""Environment variable by which a shell asks for completions of a command line."""


class Commands(Group):
    """The commands of all installed distributions. Only the one that is called is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(_offered(ctx))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it, or None if no plugin offers it."""
        found = _offered(ctx).get(cmd_name)
        if found is None:
            return None
        if found[0].core:
            return replaced(found[0].entry_point.load(), output.kept_apart, json=cmd_name not in SILENT)
        return _foreign_command(found)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups, each with a whole sentence."""
        offered = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        told = {name: one.get_short_help_str(limit=1000) for name, one in offered.items() if one}
        others = told.keys() - {name for names in GROUPS.values() for name in names}
        for heading, names in GROUPS.items():
            with formatter.section(heading):
                every = [*names, *sorted(others)] if heading == EXTEND else names
                formatter.write_dl([(name, told[name]) for name in every if name in told])

    def hint(self, name: str, known: Iterable[str]) -> str:
        """Return the package that has the command, or the most similar one."""
        package = discovery.ELSEWHERE.get((Kind.COMMAND, name))
        return f"install {package}, which has it; " if package else did_you_mean(name, known)


def _offered(context: click.Context) -> dict[str, list[Plugin]]:
    """Return each command's name with the plugins that offer it."""
    # Kept in the context: click asks several times, and each time all installed distributions would be read.
    offered: dict[str, list[Plugin]] = context.meta.setdefault(__name__, {})
    if not offered:
        found = {name: contenders(claims) for name, claims in advertised(Kind.COMMAND).items()}
        offered.update({name: claims for name, claims in found.items() if claims})
    return offered


def _foreign_command(claims: list[Plugin]) -> click.Command:
    """Import the command of another distribution; a broken one fails with its cause only when it is called."""
    # `backy --help` and all other commands must work whatever else is installed.
    name = claims[0].name
    if len(claims) > 1:
        return _broken_command(name, PluginError(f"command '{name}' is {conflict(claims)}"))
    try:
        # It may write to standard output when it runs, but not before: the command line may be that of another one.
        with redirect_stdout(sys.stderr):
            return replaced(claims[0].load(), partial(_blamed, claims[0]))
    except PluginError as error:
        return _broken_command(name, error)


def _blamed(plugin: Plugin, callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return the callback of a plugin's command, in which an error that nobody expects is told as the plugin's."""

    @wraps(callback)
    def run(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as click calls it
        try:
            return callback(*arguments, **options)
        except (BackyError, OSError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise  # meant for users, or the end that the command chose
        except (Exception, SystemExit) as error:
            raise BrokenPluginError(plugin, described(error)) from error

    return run


def _broken_command(name: str, cause: PluginError) -> click.Command:
    """Return a command that raises `cause`."""

    def fail() -> NoReturn:
        raise cause

    # It accepts any options: a usage error about one would hide the cause.
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    return click.Command(name, callback=fail, short_help=f"(broken) {cause}", context_settings=settings)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-l", "--logfile", type=FILE, help="Log to this file, not to standard error.")
@click.option("--plugins-dir", type=FOLDER, help=f"Folder of event plugins; else {discovery.FOLDER}.")
@click.version_option(package_name=CORE_DISTRIBUTION, prog_name="backy", message=VERSION, help="Show the version.")
@click.pass_context
def backy(context: click.Context, logfile: Path | None, plugins_dir: Path | None) -> None:
    """Back up images of virtual machines, block by block, and get them back.

    SPEC names a revision: a number (0 is the newest), an id or its beginning, a tag, or 'last'. The options -b, -j, -c
    and -v may stand behind the command, too.
    """
    set_up_logging(logfile, verbose=output.kept("verbose", default=False))
    # Not an argument of everything that tells of events: the children of the scheduler have to see the same files.
    if plugins_dir:
        os.environ[VARIABLE] = str(plugins_dir.absolute())
    if logfile:
        log.info("$ %s", _shown(sys.argv))


backy.params += options(hidden=False)


def _shown(words: list[str]) -> str:
    """Return a command line for the log, without the arguments of `init`."""
    # The argument of a source may have a password in it.
    if "init" in words:
        words = [*words[: words.index("init") + 1], "..."]
    return shlex.join(words)


def main(arguments: list[str] | None = None) -> None:
    """Run `backy` and end the process with an `ExitCode`."""
    output.separate()
    faulthandler.enable()
    # `kill -USR2` shows where a command hangs, without ending it.
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    signal.signal(signal.SIGTERM, _terminate)
    code = _run(arguments)
    output.close()
    sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    """Run a command and return its exit code; an error is one line on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if instruction := os.environ.get(COMPLETION):
            # Here: nearly all commands need no completion.
            from click.shell_completion import shell_complete

            return shell_complete(backy, {}, "backy", COMPLETION, instruction)
        with backy.make_context("backy", list(words)) as context:
            backy.invoke(context)
        # Here an error can be told still; the interpreter would end with an exit code of its own.
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx:
            click.echo(error.ctx.get_usage(), err=True)
        _tell(told(error, words))
        return ExitCode.USAGE if isinstance(error, click.UsageError) else ExitCode.FAILED
    except BaseException as error:  # noqa: BLE001  # this is where every error ends, as one line
        return _failed(error)
    log.info("done")
    return ExitCode.DONE


def _failed(error: BaseException) -> int:
    """Report the error that ended the command and return the exit code."""
    # `backy status | head` is no error worth a line.
    seen_enough = isinstance(error, BrokenPipeError) and _output_has_no_reader()
    _drop_output()
    if seen_enough:
        return ExitCode.FAILED
    message = "interrupted" if isinstance(error, click.Abort) else error_line(error)
    log.debug("this is where it happened:", exc_info=error)
    _tell(message)
    if is_full(error):
        return ExitCode.FULL
    return error.exit_code if isinstance(error, BackyError) else ExitCode.FAILED


def _tell(message: str) -> None:
    """Write why the command failed to standard error, and to the log file if there is one."""
    click.echo(painted(f"Error: {printable(message)}", sys.stderr), err=True)
    if logs_to_file():
        log.error("%s", message)


def _output_has_no_reader() -> bool:
    """Return whether standard output is a pipe that nobody reads any more."""
    # EPIPE may also come from a plugin's own pipe or socket: then it is an error as any other.
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> None:
    """Discard output that could not be written."""
    # The interpreter would try again at its end, and print a second error.
    try:
        sys.stdout.flush()
    except OSError:
        output.discard()


def _terminate(_number: int, _frame: object) -> None:
    """End the command as Ctrl-C does, so that an unfinished revision is removed."""
    # Once is enough: a second SIGTERM must not interrupt the removal.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
