"""Loads plugins by stevedore's managers: the one that a job names, or all event plugins.

They get the entry points that `discovery` has found and do not search for any themselves: stevedore would read those of
all distributions, take outdated ones from a cache, and end with the first distribution that it can not read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from typing import Any, NoReturn

from stevedore.driver import DriverManager
from stevedore.enabled import EnabledExtensionManager
from stevedore.extension import Extension, ExtensionManager

from backy.plugins.discovery import Kind, Plugin
from backy.plugins.importing import imported


class Guarded(EntryPoint):
    """The entry point of a plugin. Loading it raises a `BrokenPluginError`, whatever goes wrong."""

    plugin: Plugin
    _begin: Callable[[Plugin], None]

    def __init__(self, plugin: Plugin, begin: Callable[[Plugin], None] = lambda _plugin: None) -> None:
        """Take the entry point of `plugin`; `begin` is called before it is imported."""
        super().__init__(plugin.entry_point.name, plugin.entry_point.value, plugin.entry_point.group)
        # An entry point refuses new attributes; its own constructor sets them in this way, too.
        vars(self).update(plugin=plugin, _begin=begin)

    def load(self) -> Any:  # noqa: ANN401  # an entry point may name anything
        """Import what the entry point names."""
        self._begin(self.plugin)
        return imported(self.plugin)


class ChosenPlugin(DriverManager[Any]):
    """The one plugin that a job names, imported; `driver` is what its entry point names."""

    def __init__(self, plugin: Plugin) -> None:
        """Import `plugin`. Raise BrokenPluginError if that fails."""
        self._chosen = plugin
        super().__init__(plugin.kind.group, plugin.name, on_load_failure_callback=_raise)

    def list_entry_points(self) -> list[EntryPoint]:
        """Return the entry point that was chosen."""
        return [Guarded(self._chosen)]


class EventPlugins(EnabledExtensionManager[Any]):
    """All event plugins, imported in the order of their names; broken ones are reported and left out."""

    def __init__(
        self,
        plugins: Sequence[Plugin],
        begin: Callable[[Plugin], None],
        accept: Callable[[Plugin, object], None],
        failed: Callable[[Plugin, BaseException], None],
    ) -> None:
        """Import `plugins`.

        Args:
            plugins: What to import.
            begin: Called before each plugin is imported.
            accept: Called with each plugin and what it names; raises BrokenPluginError to refuse it.
            failed: Called with each plugin that can not be imported or is refused, and the error.
        """
        self._plugins, self._begin = plugins, begin

        def enabled(extension: Extension[Any]) -> bool:
            accept(_plugin_of(extension.entry_point), extension.plugin)
            return True

        def report(_manager: ExtensionManager[Any], entry_point: EntryPoint, error: BaseException) -> None:
            failed(_plugin_of(entry_point), error)

        super().__init__(Kind.HOOK.group, enabled, on_load_failure_callback=report)

    def list_entry_points(self) -> list[EntryPoint]:
        """Return the entry points of the plugins that were given."""
        return [Guarded(plugin, self._begin) for plugin in self._plugins]


def _plugin_of(entry_point: EntryPoint) -> Plugin:
    assert isinstance(entry_point, Guarded)  # noqa: S101  # stevedore hands back what the methods above have given
    return entry_point.plugin


def _raise(_manager: ExtensionManager[Any], _entry_point: EntryPoint, error: BaseException) -> NoReturn:
    raise error
