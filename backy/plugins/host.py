"""A process that loads a plugin and calls it for another process: `python -m backy.plugins.host`.

The plugin may hang, end the process or print to standard output. In here this harms nobody. `hosting` starts the
process and speaks with it in lines of JSON, over a socket whose descriptor is the argument.
"""

import inspect
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from logging.handlers import BufferingHandler
from typing import get_type_hints

import msgspec

from backy import hookspecs
from backy.api import ConsoleCommand
from backy.errors import BackyError
from backy.plugins.broken import described
from backy.plugins.discovery import Kind, Plugin
from backy.plugins.hosting import Answer
from backy.plugins.loading import accepted


def main() -> None:
    """Load the plugin of the first message, then call it until the connection ends."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    # What the plugin starts must not hold it open.
    connection.set_inheritable(False)
    lines = connection.makefile("rb")
    (kind, *described), sys.path[:], level, limit = msgspec.json.decode(lines.readline())
    logging.getLogger().setLevel(level)
    # The other process may end at any time.
    with suppress(OSError):
        hosted = _Hosted(Plugin(Kind[kind], *described))
        connection.sendall(_answer(hosted.load, limit))
        for line in lines:
            connection.sendall(_answer(partial(hosted.call, *msgspec.json.decode(line)), limit))
    # Not the ordinary end: a thread of the plugin could keep the process from it.
    os._exit(0)


def _answer(work: Callable[[], object], limit: float) -> bytes:
    """Return what `work` returns or raises as a line."""
    # By a signal, which ends the process whatever the plugin waits for; also if the other process has been killed.
    signal.setitimer(signal.ITIMER_REAL, limit)
    # The other process may have a file for them.
    logged = BufferingHandler(sys.maxsize)
    logging.getLogger().handlers = [logged]
    try:
        # As JSON already here: what can not be written as such is the plugin's fault.
        answer = Answer(returned=msgspec.Raw(msgspec.json.encode(work())))
    except BaseException as error:  # whatever it is, the other process learns of it
        refused = isinstance(error, BackyError)
        text = " ".join(str(error).split()) if refused else described(error)
        answer = Answer(failure=text, refused=refused)
        logging.getLogger(__name__).debug("this is where it happened:", exc_info=error)
    signal.setitimer(signal.ITIMER_REAL, 0)
    answer.logged = [(record.name, record.levelno, logged.format(record)) for record in logged.buffer]
    return msgspec.json.encode(answer) + b"\n"


class _Hosted:
    """The plugin."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def load(self) -> tuple[dict[str, int], str | None]:
        """Import the plugin and check it. Return its hooks with their places, and the text of its author if any."""
        found = self._plugin.load()
        if self._plugin.kind is Kind.COMMAND:
            # The docstring of a command object is that of click's class; the author's text is its help.
            return {}, found.help
        self._manager = accepted(self._plugin, found)
        callers = self._manager.get_hookcallers(found) or ()
        hooks = {caller.name: one.trylast - one.tryfirst for caller in callers for one in caller.get_hookimpls()}
        return hooks, inspect.getdoc(found)

    def call(self, hook: str, values: dict[str, object], words: list[str]) -> object:
        """Call a hook, or a command that it returns; return what there is to know of the result."""
        types = get_type_hints(getattr(hookspecs, hook))
        # Of the types of the hooks, JSON has all but paths.
        convert = partial(msgspec.convert, dec_hook=lambda path, value: path(value))
        arguments = {name: convert(value, types[name]) for name, value in values.items()}
        results = getattr(self._manager.hook, hook)(**arguments)
        if hook != "backy_console_commands":
            return None
        commands = {one.name: one for one in map(_checked, chain(*results))}
        if words:
            return commands[words[0]].run(words[1:])
        return [(one.name, one.help, one.changes) for one in commands.values()]


def _checked(command: object) -> ConsoleCommand:
    if isinstance(command, ConsoleCommand) and command.name.isprintable() and len(command.name.split()) == 1:
        return command
    raise TypeError(f"{command!r} is no ConsoleCommand whose name is a word")


if __name__ == "__main__":
    main()
