"""A process that loads plugins and calls them for another one: `python -m backy.plugins.host`.

A plugin may hang, end the process or print to standard output. In here this harms nobody. The process forks for each
call, so that a call can be ended and changes nothing for the next one. `hosting` starts it and speaks with it in JSON,
over a connection whose descriptor is the argument.
"""

from __future__ import annotations

import faulthandler
import inspect
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import EntryPoint
from logging.handlers import BufferingHandler
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pluggy

from backy import hookspecs
from backy.api import ConsoleCommand
from backy.durable import write_all
from backy.errors import BackyError
from backy.plugins import tracing
from backy.plugins.broken import BrokenPluginError, described
from backy.plugins.contract import ARGUMENTS
from backy.plugins.discovery import Kind, Plugin
from backy.plugins.hosting import Answer, ending
from backy.plugins.importing import checked_command
from backy.plugins.loading import accepted
from backy.plugins.managers import EventPlugins


def main() -> None:
    """Load the plugins of the first message, then answer requests until the connection ends."""
    faulthandler.enable()
    connection = Connection(int(sys.argv[1]))
    # What a plugin starts must not hold it open.
    os.set_inheritable(connection.fileno(), False)
    first = msgspec.json.decode(connection.recv_bytes())
    logging.basicConfig(format="%(levelname)s: %(message)s", level=first["level"])
    # The plugins that the other process sees, from the places where it sees them.
    sys.path[:] = first["path"]
    host = _Host([_plugin(*one) for one in first["plugins"]], connection)
    # The other process may end at any time.
    with suppress(EOFError, OSError):
        host.load()
        host.serve()
    # Not the ordinary end: a thread of a plugin could keep the process from it.
    os._exit(0)


def _plugin(kind: str, name: str, value: str, distribution: str, version: str, file: str | None) -> Plugin:  # noqa: PLR0913, PLR0917  # as `hosting` describes it
    entry_point = EntryPoint(name, value, Kind[kind].group)
    return Plugin(Kind[kind], name, entry_point, distribution, version, None, Path(file) if file else None)


class _Host:
    """Loaded plugins, and the connection."""

    def __init__(self, plugins: list[Plugin], connection: Connection) -> None:
        self._plugins = plugins
        self._connection = connection
        self._found: dict[int, object] = {}
        # One for all event plugins: their order is what they ask for by `tryfirst` and `trylast`.
        self._shared = pluggy.PluginManager("backy")
        self._shared.add_hookspecs(hookspecs)

    def load(self) -> None:
        """Import all plugins, report those that are broken, and then who is called for each hook, in this order."""
        # In reverse: of two plugins with equal wishes, pluggy calls the one first that was registered last.
        EventPlugins(self._plugins[::-1], self._begin, self._accept, self._failed)
        self._send({"ready": {name: list(self._order(name)) for name in ARGUMENTS}})

    def serve(self) -> None:
        """Answer requests until there are no more."""
        while True:
            request = msgspec.json.decode(self._connection.recv_bytes())
            self._send(_in_a_child(partial(self._do, request), request["limit"], self._connection))

    def _send(self, message: object) -> None:
        self._connection.send_bytes(msgspec.json.encode(message))

    def _begin(self, plugin: Plugin) -> None:
        self._send({"loading": self._index(plugin)})

    def _failed(self, plugin: Plugin, error: BaseException) -> None:
        cause = error.cause if isinstance(error, BrokenPluginError) else described(error)
        self._send({"failed": self._index(plugin), "cause": cause})

    def _index(self, plugin: Plugin) -> int:
        return self._plugins.index(plugin)

    def _accept(self, plugin: Plugin, found: object) -> None:
        """Check what a plugin names. Raise BrokenPluginError if it is not what it has to be."""
        if plugin.kind is Kind.COMMAND:
            checked_command(plugin, found)
        else:
            accepted(plugin, found)
        if plugin.kind is Kind.HOOK:
            # By its number, as two plugins may have one name. A copy, as pluggy takes the same module only once.
            hooks = [name for name in dir(found) if self._shared.parse_hookimpl_opts(found, name)]
            copy = type(plugin.name, (), {name: getattr(found, name) for name in hooks})
            self._shared.register(copy, str(self._index(plugin)))
        self._found[self._index(plugin)] = found

    def _order(self, hook: str) -> Iterator[int]:
        caller: pluggy.HookCaller = getattr(self._shared.hook, hook)
        return (int(implementation.plugin_name) for implementation in reversed(caller.get_hookimpls()))

    def _do(self, request: dict[str, Any]) -> object:
        """Do what a request asks for. Called in a child."""
        plugin = self._plugins[request["plugin"]]
        match request["do"]:
            case "describe":
                return _documentation(self._found[request["plugin"]])
            case "call":
                self._call(plugin, request["hook"], request["arguments"])
                return None
            case "commands":
                return [(one.name, one.help, one.changes) for one in map(_checked, self._commands(plugin))]
            case _:
                found = next(one for one in self._commands(plugin) if one.name == request["name"])
                return found.run(request["words"])

    def _commands(self, plugin: Plugin) -> list[ConsoleCommand]:
        return [command for found in self._call(plugin, "backy_console_commands", {}) for command in found]

    def _call(self, plugin: Plugin, hook: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401  # the hook says what
        others = [other for name, other in self._shared.list_name_plugin() if name != str(self._index(plugin))]
        if tracing.wanted():
            tracing.watch(plugin, self._shared)
        caller = self._shared.subset_hook_caller(hook, others)
        types = get_type_hints(getattr(hookspecs, hook))
        # Of the types of the hooks, JSON has all but paths.
        convert = partial(msgspec.convert, dec_hook=lambda path, value: path(value))
        return caller(**{name: convert(value, types[name]) for name, value in arguments.items()})


def _checked(command: object) -> ConsoleCommand:
    if isinstance(command, ConsoleCommand) and command.name.isprintable() and len(command.name.split()) == 1:
        return command
    raise TypeError(f"{command!r} is no ConsoleCommand whose name is a word")


def _documentation(found: object) -> str | None:
    """Return the text that the plugin's author wrote, if any."""
    import click

    # The docstring of a command object is that of click's class; the author's text is its help.
    return found.help if isinstance(found, click.Command) else inspect.getdoc(found)


def _in_a_child(work: Callable[[], object], limit: float, connection: Connection) -> Answer:
    """Return what `work` returns or raises in a child, or how the child ended before that.

    Args:
        work: What to do.
        limit: Seconds after which the child is killed.
        connection: When the other process has closed it, the child is killed, too.
    """
    # A file in memory, not a pipe: a pipe that is full, or that a process left behind holds open, would block.
    with os.fdopen(os.memfd_create("result"), "rb+") as result:
        child = os.fork()
        if child == 0:
            _run(work, result.fileno())
        ended = _wait(child, limit, connection)
        result.seek(0)
        content = result.read()
    if content and ended == ending(0):
        return msgspec.json.decode(content, type=Answer)
    return Answer(failure=f"ended {ended}")


def _run(work: Callable[[], object], result: int) -> None:
    """Write what `work` returns or raises to `result` as JSON, and end the process."""
    # A group of its own: what the plugin starts is ended with it.
    os.setpgid(0, 0)
    # The other process may have a file for them.
    logged = BufferingHandler(sys.maxsize)
    logging.getLogger().handlers = [logged]
    try:
        # As JSON already here: what can not be written as such is the plugin's fault.
        answer = Answer(returned=msgspec.Raw(msgspec.json.encode(work())))
    except BaseException as error:  # noqa: BLE001  # whatever it is, the other process learns of it
        answer = _raised(error)
    answer.logged = [(record.name, record.levelno, record.getMessage()) for record in logged.buffer]
    write_all(result, msgspec.json.encode(answer))
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Not the ordinary end: what the plugin has registered for it belongs to the process that imported it.
    os._exit(0)


def _raised(error: BaseException) -> Answer:
    refused = isinstance(error, BackyError)
    text = " ".join(str(error).split()) if refused else described(error)
    return Answer(failure=text, refused=refused, where="".join(traceback.format_exception(error)))


def _wait(child: int, limit: float, connection: Connection) -> str:
    """Wait for a child, or kill it with all that it has started when it must go; return how it ended."""
    descriptor = os.pidfd_open(child)
    try:
        # The other process sends nothing while it waits for an answer: it can only be the end of the connection.
        done = descriptor in wait([descriptor, connection], limit)
    finally:
        os.close(descriptor)
    if not done:
        # Both: the child may not have come as far as to make a group.
        os.kill(child, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ending(code) if done else f"after {limit:g} seconds, its limit"


if __name__ == "__main__":
    main()
