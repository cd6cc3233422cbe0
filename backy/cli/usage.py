"""Tells what is wrong with a command line, and what to write instead."""

from collections.abc import Iterable

import click

from backy.errors import ExitCode
from backy.text.phrases import did_you_mean

FORMER = {
    "--yaml": "'--json' has all details, and can be read as YAML, too",
    "--uuid": "'--id' prints the id",
    "-H": "it is '--host'",
    "-p": "it is '--port'",
}
"""Options of backy 2, and what is there in their place."""


class Group(click.Group):
    """A command with commands below it. An unknown one is a usage error that names the most similar one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the arguments; without any, show the help as an error."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or raise UsageError."""
        if args[0] not in (known := self.list_commands(ctx)) and not args[0].startswith("-"):
            ctx.fail(f"No such command '{args[0]}'; {self.hint(args[0], known)}{_help(ctx)}")
        return super().resolve_command(ctx, args)

    def hint(self, name: str, known: Iterable[str]) -> str:
        """Return what to write in place of an unknown name."""
        return did_you_mean(name, known)


def told(error: click.ClickException, words: Iterable[str] = ()) -> str:
    """Return the error in the command line `words`, the same whatever version of click is there."""
    context = getattr(error, "ctx", None)
    options = [one for one in context.command.params if isinstance(one, click.Option)] if context else []
    match error:
        case click.NoSuchOption(option_name=name):
            known = [each for one in options for each in one.opts]
            former = FORMER.get(name, "")
            # a letter may be wrong for other reasons where the command has not what it once stood for
            if any(f"'{each}'" in former for each in known):
                return f"No such option '{name}': {former}"
            return f"No such option '{name}'; {did_you_mean(name, known)}{_help(context)}"
        case click.MissingParameter(param=parameter) if parameter:
            what = getattr(parameter, "help", None)
            metavar = f" {parameter.metavar}" if isinstance(parameter, click.Option) and parameter.metavar else ""
            return f"{_named(parameter, metavar)} is missing{f': {what}' if what else f'; {_help(context)}'}"
        case click.BadParameter(param=parameter) if parameter:
            return f"{_named(parameter)}: {_expected(parameter.type) or error.message}"
        case click.BadOptionUsage(option_name=name):
            takes = "no" if any(word.startswith(f"{name}=") for word in words) else "a"
            return f"'{name}' takes {takes} value; {_help(context)}"
    return error.format_message()


def _help(context: click.Context | None) -> str:
    return f"'{context.command_path if context else 'backy COMMAND'} --help' lists all"


def _named(parameter: click.Parameter, more: str = "") -> str:
    """Return how users write a parameter."""
    if isinstance(parameter, click.Option):
        return f"'{parameter.opts[0]}{more}'"
    return parameter.metavar or (parameter.name or "").upper()


def _expected(kind: object) -> str | None:
    """Return what a value has to be, or None if the message tells that already."""
    match kind:
        case click.Choice(choices=choices):
            return f"write {' or '.join(map(str, choices))}"
        case click.IntRange(min=least, max=most) | click.FloatRange(min=least, max=most):
            return f"write a number from {least}{'' if most is None else f' to {most}'}, without a unit"
        case click.DateTime():
            return "write a day as 2026-11-30"
        case click.Path(file_okay=False):
            return "write the path of a folder that is there"
        case click.Path():
            return "write the path of a file, not of a folder"
    return None
