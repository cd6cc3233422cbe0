"""Importing what an entry point names. Every plugin of every kind is imported here, behind the one guard.

`backy --help` imports the commands of other distributions by this, so this imports neither pluggy nor the contract.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from backy.errors import PluginError
from backy.plugins.broken import BrokenPluginError, described
from backy.plugins.discovery import Plugin
from backy.plugins.files import opened


def imported(plugin: Plugin) -> Any:  # noqa: ANN401  # an entry point may name anything
    """Import what the entry point of `plugin` names.

    Raises:
        BrokenPluginError: importing it failed; the text says how.
    """
    # The entry point itself was chosen, with its distribution. To search for it by its name again could find that of
    # another distribution, or one of an outdated cache.
    try:
        return _run(plugin.name, plugin.file) if plugin.file else plugin.entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's SystemExit or panic of a compiled module must harm nothing else
        # A refusal to run it is backy's own, and has its reason already.
        cause = str(error) if isinstance(error, PluginError) else described(error)
        raise BrokenPluginError(plugin, cause) from error


def imported_command(plugin: Plugin) -> click.Command:
    """Import the click command that `plugin` names.

    Raises:
        BrokenPluginError: importing it failed, or it is something else.
    """
    return checked_command(plugin, imported(plugin))


def checked_command(plugin: Plugin, found: object) -> click.Command:
    """Return what `plugin` names if it is a click command; else raise BrokenPluginError."""
    if not isinstance(found, click.Command):
        raise BrokenPluginError(plugin, f"'{plugin.entry_point.value}' is no click command")
    return found


def _run(name: str, file: Path) -> ModuleType:
    """Run the file of a plugin and return it as a module."""
    # What was checked is what is run, even if the file is replaced meanwhile: nobody but the operator has written it.
    with os.fdopen(opened(file), "rb") as stream:
        code = compile(stream.read(), str(file), "exec", dont_inherit=True)
    module = ModuleType(name)
    module.__file__ = str(file)
    exec(code, vars(module))  # noqa: S102  # running it is what it is there for
    return module
