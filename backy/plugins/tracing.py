"""Shows the authors of plugins which plugins are loaded and called, if `BACKY_TRACE_PLUGINS=1` is set."""

from __future__ import annotations

import os
import sys
from typing import Any

import pluggy

from backy.plugins.discovery import Plugin


def wanted() -> bool:
    """Return whether the environment asks for a trace."""
    return os.environ.get("BACKY_TRACE_PLUGINS") == "1"


def trace(plugin: Plugin, manager: pluggy.PluginManager) -> None:
    """Write a line to standard error now and at every call of `plugin`."""
    _write(f"{plugin}: loaded from '{plugin.entry_point.value}'")
    watch(plugin, manager)


def watch(plugin: Plugin, manager: pluggy.PluginManager) -> None:
    """Write a line to standard error at every call of `plugin` by `manager`."""

    def before(hook: str, implementations: Any, arguments: Any) -> None:  # noqa: ANN401  # as pluggy calls it
        if implementations:
            _write(f"{plugin}: {hook}({', '.join(arguments)})")

    def after(outcome: Any, hook: str, implementations: Any, _arguments: Any) -> None:  # noqa: ANN401  # likewise
        if implementations:
            ended = "raised" if outcome.exception else "returned"
            # Its type only: a configuration may hold secrets, and so may what is made of it.
            value = outcome.exception or outcome.get_result()
            _write(f"{plugin}: {hook} {ended} {type(value).__name__}")

    manager.add_hookcall_monitoring(before, after)


def _write(line: str) -> None:
    sys.stderr.write(f"plugin trace: {line}\n")
