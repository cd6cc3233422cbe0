"""Importing what an entry point names. Every plugin of every kind is imported here, behind the one guard.

`backy --help` imports the commands of other distributions by this, so this imports neither pluggy nor the contract.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import click

from backy.plugins.broken import BrokenPluginError, described
from backy.plugins.discovery import Plugin


def imported(plugin: Plugin) -> Any:  # noqa: ANN401  # an entry point may name anything
    """Import what the entry point of `plugin` names.

    Raises:
        BrokenPluginError: importing it failed; the text says how.
    """
    # The entry point itself was chosen, with its distribution. To search for it by its name again could find that of
    # another distribution, or one of an outdated cache.
    try:
        return plugin.entry_point.load() if plugin.descriptor is None else _run(plugin, plugin.descriptor)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's SystemExit or panic of a compiled module must harm nothing else
        raise BrokenPluginError(plugin, described(error)) from error


def imported_command(plugin: Plugin) -> click.Command:
    """Import the click command that `plugin` names.

    Raises:
        BrokenPluginError: importing it failed, or it is something else.
    """
    command = imported(plugin)
    if not isinstance(command, click.Command):
        raise BrokenPluginError(plugin, f"'{plugin.entry_point.value}' is no click command")
    return command


def _run(plugin: Plugin, descriptor: int) -> ModuleType:
    """Run the file of a plugin from its open descriptor, and return it as a module."""
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        code = compile(stream.read(), str(plugin.file), "exec", dont_inherit=True)
    module = ModuleType(plugin.name)
    module.__file__ = str(plugin.file)
    # The file was checked when it was opened: nobody but the operator can have written it.
    exec(code, vars(module))  # noqa: S102  # running it is what it is there for
    return module
