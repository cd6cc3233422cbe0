"""A process that loads plugins and calls them for another one: `python -m backy.plugins.host`.

A plugin may hang, end the process or print to standard output. In here this harms nobody. The process forks for each
call, so that a call can be ended and changes nothing for the next one. `hosting` starts it and speaks with it: one JSON
object a line, the requests on standard input and the answers on standard output.
"""

from __future__ import annotations

import faulthandler
import inspect
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import EntryPoint
from io import BufferedReader
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
from backy.plugins.discovery import Kind, Plugin
from backy.plugins.importing import imported_command
from backy.plugins.loading import accepted, managed
from backy.plugins.managers import EventPlugins


def main() -> None:
    """Load the plugins of the first request, then answer requests until standard input ends."""
    faulthandler.enable()
    # Whoever prints anything may do so: the answers have a descriptor of their own.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    first = msgspec.json.decode(requests.readline())
    logging.basicConfig(format="%(levelname)s: %(message)s", level=first["level"])
    # The plugins that the other process sees, from the places where it sees them.
    sys.path[:] = first["path"]
    host = _Host([_plugin(one) for one in first["plugins"]], answers)
    host.load()
    host.serve(requests)
    # Not the ordinary end: a thread of a plugin could keep the process from it.
    os._exit(0)


def _plugin(found: dict[str, Any]) -> Plugin:
    kind = Kind[found["kind"]]
    entry_point = EntryPoint(found["name"], found["value"], kind.group)
    file = Path(found["value"]) if found["descriptor"] is not None else None
    origin = found["distribution"], found["version"]
    return Plugin(kind, found["name"], entry_point, *origin, None, file, found["descriptor"])


class _Host:
    """Loaded plugins, and the descriptor for answers."""

    def __init__(self, plugins: list[Plugin], answers: int) -> None:
        self._plugins = plugins
        self._answers = answers
        self._modules: dict[int, object] = {}
        # One for all event plugins: their order is what they ask for by `tryfirst` and `trylast`.
        self._shared = pluggy.PluginManager("backy")
        self._shared.add_hookspecs(hookspecs)

    def load(self) -> None:
        """Import all plugins, report those that are broken, and then who is called for each hook, in this order."""
        # In reverse: of two plugins with equal wishes, pluggy calls the one first that was registered last.
        hooks = [plugin for plugin in reversed(self._plugins) if plugin.kind is Kind.HOOK]
        EventPlugins(hooks, self._begin, self._register, self._failed)
        for plugin in self._plugins:
            if plugin.kind is not Kind.HOOK:
                self._begin(plugin)
                try:
                    self._modules[self._index(plugin)] = _loaded(plugin)
                except BrokenPluginError as error:
                    self._failed(plugin, error.cause)
        self._answer(
            {"ready": {name: list(self._order(name)) for name in vars(hookspecs) if name.startswith("backy_")}}
        )

    def serve(self, requests: BufferedReader) -> None:
        """Answer requests until there are no more."""
        for line in requests:
            request = msgspec.json.decode(line)
            self._answer(_in_a_child(partial(self._do, request), request["limit"], requests.fileno()))

    def _answer(self, message: dict[str, Any]) -> None:
        write_all(self._answers, msgspec.json.encode(message) + b"\n")

    def _begin(self, plugin: Plugin) -> None:
        self._answer({"loading": self._index(plugin)})

    def _failed(self, plugin: Plugin, cause: str) -> None:
        self._answer({"failed": self._index(plugin), "cause": cause})

    def _index(self, plugin: Plugin) -> int:
        return self._plugins.index(plugin)

    def _register(self, plugin: Plugin, module: object) -> None:
        accepted(plugin, module)
        # By its number, since two plugins may have one name. Two may also be one module, which pluggy takes only once.
        self._shared.register(
            module if module not in self._modules.values() else _Alias(module), str(self._index(plugin))
        )
        self._modules[self._index(plugin)] = module

    def _order(self, hook: str) -> Iterator[int]:
        caller: pluggy.HookCaller = getattr(self._shared.hook, hook)
        return (int(implementation.plugin_name) for implementation in reversed(caller.get_hookimpls()))

    def _do(self, request: dict[str, Any]) -> object:
        """Do what a request asks for. Called in a child."""
        plugin = self._plugins[request["plugin"]]
        match request["do"]:
            case "describe":
                return _documentation(self._modules[request["plugin"]])
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
        return caller(
            **{name: msgspec.convert(value, types[name], dec_hook=_path) for name, value in arguments.items()}
        )


class _Alias:
    """A second appearance of a module, for a manager that takes each object once."""

    def __init__(self, module: object) -> None:
        vars(self).update({name: getattr(module, name) for name in dir(module) if name.startswith("backy_")})


def _checked(command: object) -> ConsoleCommand:
    if isinstance(command, ConsoleCommand) and command.name.isprintable() and len(command.name.split()) == 1:
        return command
    raise TypeError(f"{command!r} is no ConsoleCommand whose name is a word")


def _path(wanted: type, value: object) -> object:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError


def _loaded(plugin: Plugin) -> object:
    if plugin.kind is Kind.COMMAND:
        return imported_command(plugin)
    ((_, module),) = managed(plugin).list_name_plugin()
    return module


def _documentation(found: object) -> str | None:
    """Return the text that the plugin's author wrote, if any."""
    import click

    # The docstring of a command object is that of click's class; the author's text is its help.
    return found.help if isinstance(found, click.Command) else inspect.getdoc(found)


def _in_a_child(work: Callable[[], object], limit: float, requests: int) -> dict[str, Any]:
    """Return what `work` returns or raises in a child, or how the child ended before that.

    Args:
        work: What to do.
        limit: Seconds after which the child is killed.
        requests: The descriptor of the pipe for requests. When the other process is gone, the child is killed, too.
    """
    # A file in memory, not a pipe: a pipe that is full, or that a process left behind holds open, would block.
    result = os.memfd_create("result")
    try:
        child = os.fork()
        if child == 0:
            _run(work, result)
        ended = _wait(child, limit, requests)
        os.lseek(result, 0, os.SEEK_SET)
        with os.fdopen(os.dup(result), "rb") as stream:
            found: dict[str, Any] = msgspec.json.decode(stream.read() or b"{}")
        return found if found and ended == "with exit code 0" else {"ended": ended}
    finally:
        os.close(result)


class _Collector(logging.Handler):
    """Keeps log records for the other process, which may have a file for them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelno, record.getMessage()))


def _run(work: Callable[[], object], result: int) -> None:
    """Write what `work` returns or raises to `result` as JSON, and end the process."""
    # A group of its own: what the plugin starts is ended with it.
    os.setpgid(0, 0)
    logged = _Collector()
    logging.getLogger().handlers = [logged]
    try:
        answer: dict[str, Any] = {"returned": work()}
    except BaseException as error:  # noqa: BLE001  # whatever it is, the other process learns of it
        known = isinstance(error, BackyError)
        answer = {"raised": " ".join(str(error).split()) if known else described(error), "refused": known}
        answer["where"] = "".join(traceback.format_exception(error))
    answer["logged"] = logged.records
    try:
        content = msgspec.json.encode(answer)
    except Exception as error:  # noqa: BLE001  # as above
        content = msgspec.json.encode({"raised": described(error), "refused": False, "where": ""})
    write_all(result, content)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Not the ordinary end: what the plugin has registered for it belongs to the process that imported it.
    os._exit(0)


def _wait(child: int, limit: float, requests: int) -> str:
    """Wait for a child, or kill it with all that it has started when it must go; return how it ended."""
    descriptor = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(requests, 0)  # only its end is of interest
        events = dict(poll.poll(limit * 1000))
        if descriptor not in events:
            # Both: the child may not have come as far as to make a group.
            os.kill(child, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(descriptor)
    if descriptor not in events:
        return f"after {limit:g} seconds, its limit"
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"


if __name__ == "__main__":
    main()
