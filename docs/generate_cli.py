#!/usr/bin/env python3
"""Writes docs/reference/cli.md from the commands themselves: `python docs/generate_cli.py` after a change to one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from backy.cli.main import backy
from backy.plugins.discovery import Kind, advertised

PAGE = Path(__file__).parent / "reference/cli.md"
DISTRIBUTIONS = {
    "backy",
    "backy-sources-file",
    "backy-sources-ceph",
    "backy-sources-lvm",
    "backy-sources-qemu",
    "backy-sources-flyingcircus",
    "backy-files",
    "backy-drills",
    "backy-upgrade",
}
INTRODUCTION = """\
# Commands

This page is made from the help of the commands, which `backy --help` and `backy COMMAND --help` print. `files`
comes with `backy-files`, and `upgrade` with `backy-upgrade`. Other distributions may
add commands; `backy --help` has those too.

All commands end with one of the [exit codes](exit-codes.md). What a command is asked for goes to standard output;
warnings, progress and the one line that says why it failed go to standard error.
"""


def main() -> None:
    """Write the page, or with `-` print it."""
    page = "\n".join([INTRODUCTION, *sections(backy, "backy", "##")])
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(page)
    else:
        PAGE.write_text(page)


def sections(command: click.Command, name: str, heading: str) -> Iterator[str]:
    """Describe a command and those below it."""
    context = click.Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"{heading} {name}\n\n```text\n{name} {usage}\n```\n\n{inspect.cleandoc(command.help or '')}\n"
    options = [
        parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden
    ]
    if options:
        yield "\n".join(["| option | |", "|---|---|", *(row(option) for option in options)]) + "\n"
    if isinstance(command, click.Group):
        for other in command.list_commands(context):
            child = command.get_command(context, other)
            if child is not None and (command is not backy or ours(other)):
                yield from sections(child, f"{name} {other}", "##" if command is backy else "###")


def ours(name: str) -> bool:
    """Tell whether a command comes with backy itself or with one of its sources."""
    return any(plugin.distribution in DISTRIBUTIONS for plugin in advertised(Kind.COMMAND)[name])


def row(option: click.Option) -> str:
    """Describe an option, whatever version of click shows it how."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    value = "" if option.is_flag else f" `{option.metavar or option.type.name.upper()}`"
    default = f" Default: `{shown}`." if (shown := default_of(option)) else ""
    needed = " Required." if option.required else ""
    return f"| {names}{value} | {option.help or ''}{needed}{default} |".replace("\n", " ")


def default_of(option: click.Option) -> object:
    """Return what is shown as the default of an option, if anything is."""
    return option.show_default if isinstance(option.show_default, str) else option.show_default and option.default


if __name__ == "__main__":
    main()
