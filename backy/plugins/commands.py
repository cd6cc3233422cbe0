"""Importing other distributions' commands: `backy --help` shows them all, so nothing else is imported for them."""

from __future__ import annotations

import click

from backy.plugins.broken import BrokenPluginError, described
from backy.plugins.discovery import Plugin


def imported_command(plugin: Plugin) -> click.Command:
    """Import the click command that `plugin` names.

    Raises:
        BrokenPluginError: that failed, or it is something else.
    """
    try:
        command = plugin.entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and the panics of compiled modules harm no other command
        raise BrokenPluginError(plugin, described(error)) from error
    if not isinstance(command, click.Command):
        raise BrokenPluginError(plugin, f"'{plugin.entry_point.value}' is no click command")
    return command
