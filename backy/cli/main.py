"""The program `backy`: global options, and how every command ends."""

from __future__ import annotations

import faulthandler
import logging
import shlex
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import click

from backy.cli.logs import logs_to_file, set_up_logging
from backy.errors import BackyError, PluginError
from backy.exitcodes import ExitCode
from backy.plugins.discovery import CORE_DISTRIBUTION, Kind, advertised

log = logging.getLogger(__name__)


class Commands(click.Group):
    """The commands that the installed distributions offer; only the one that is called is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(advertised(Kind.COMMAND))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one, or return None if no plugin offers it."""
        found = [plugin for plugin in advertised(Kind.COMMAND).get(cmd_name, []) if not plugin.disabled]
        if not found:
            return None
        own = [plugin for plugin in found if plugin.distribution == CORE_DISTRIBUTION]
        if own:
            command: click.Command = own[0].entry_point.load()
            return command
        return _foreign_command(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which ones are near."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{name}'.{hint}")
        return super().resolve_command(ctx, args)


def _foreign_command(name: str) -> click.Command:
    """Import another distribution's command; one that is broken stays in the help and tells its cause when called."""
    from backy.plugins.loading import chosen, imported

    try:
        command = imported(chosen(Kind.COMMAND, name))
    except PluginError as error:
        return _broken_command(name, error)
    if isinstance(command, click.Command):
        return command
    return _broken_command(name, PluginError(f"command '{name}' is broken: its entry point names no click command"))


def _broken_command(name: str, cause: PluginError) -> click.Command:
    def fail() -> NoReturn:
        raise cause

    return click.Command(name, callback=fail, short_help=f"(broken) {cause}")


def _show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    click.echo(f"backy {version(CORE_DISTRIBUTION)}, Python {sys.version.split()[0]}")
    origins = {
        plugin.origin
        for kind in Kind
        for found in advertised(kind).values()
        for plugin in found
        if plugin.distribution != CORE_DISTRIBUTION
    }
    for origin in sorted(origins):
        click.echo(origin)
    context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Log more: what is done and why.")
@click.option(
    "-l", "--logfile", type=click.Path(dir_okay=False, path_type=Path), help="Log to this file, not to standard error."
)
@click.option(
    "-b",
    "--backupdir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Directory of the repository; the current one by default.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show versions."
)
@click.pass_context
def backy(context: click.Context, verbose: bool, logfile: Path | None, backupdir: Path) -> None:
    """Back up images of virtual machines, block by block, and get them back.

    SPEC names a revision: a number (0 is the newest), an id or its beginning, a tag, or 'last'.
    """
    set_up_logging(logfile, verbose=verbose)
    context.obj = backupdir
    if logfile:
        log.info("$ %s", shlex.join(sys.argv))


def main(arguments: list[str] | None = None) -> None:
    """Run `backy` and end the process with an `ExitCode`."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    """Run a command and return its exit code; whatever went wrong is one line on standard error."""
    try:
        backy.main(arguments, prog_name="backy", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone: there is nobody to tell
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001  # this is where every error ends, as one line
        return _failed(error)
    log.info("done")
    return ExitCode.DONE


def _failed(error: Exception) -> int:
    """Tell what ended the command and return its exit code."""
    if isinstance(error, BackyError):
        message = str(error)
    elif isinstance(error, OSError):
        message = _describe(error)
    elif isinstance(error, click.Abort):
        message = "interrupted"
    else:
        message = f"internal error: {type(error).__name__}: {error}; 'backy -v' logs where"
    log.debug("this is where it happened:", exc_info=error)
    click.echo(f"Error: {message}", err=True)
    if logs_to_file():
        log.error("%s", message)
    return error.exit_code if isinstance(error, BackyError) else ExitCode.FAILED


def _describe(error: OSError) -> str:
    """Say what the operating system refused, and for which file."""
    return ": ".join(str(part) for part in (error.filename, error.strerror or str(error)) if part)


def _terminate(_number: int, _frame: Any) -> None:  # noqa: ANN401
    """Let SIGTERM unwind the stack as Ctrl-C does, so that an unfinished revision is removed."""
    raise KeyboardInterrupt
