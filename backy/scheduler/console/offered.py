"""The console commands that event plugins offer. Each call of one has a process of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from functools import partial

from backy.api import ConsoleCommand
from backy.errors import BackyError, PluginError
from backy.plugins.events import Events
from backy.plugins.hosting import Host

log = logging.getLogger(__name__)
_HOOK = "backy_console_commands"


def console_commands(events: Events) -> dict[str, ConsoleCommand]:
    """Return the commands of all plugins by name; the first plugin wins a name that two claim."""
    commands: dict[str, ConsoleCommand] = {}
    for host in events.having(_HOOK):
        answer = host.ask(_HOOK)
        if answer.failure is not None:
            log.warning("hook '%s' adds no commands: %s", host.plugin.name, answer.failure)
        for name, text, changes in answer.returned or ():
            commands.setdefault(name, ConsoleCommand(name, text, partial(_run, host, name), changes))
    return commands


def _run(host: Host, command: str, words: Sequence[str]) -> str:
    """Run a command of a plugin."""
    # A process for each call: a command that never ends must not stand in the way of the next one.
    with closing(Host(host.plugin, host.limit)) as own:
        answer = own.ask(_HOOK, words=[command, *words])
    if answer.refused:
        raise BackyError(answer.failure)
    if answer.failure is not None:
        raise PluginError(f"{host.plugin} failed: {answer.failure}")
    return str(answer.returned)
