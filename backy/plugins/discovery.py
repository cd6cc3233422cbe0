"""Lists the installed plugins from the metadata of their distributions, without importing any."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import EntryPoint, entry_points

CORE_DISTRIBUTION = "backy"
SWITCHES = ("BACKY_PLUGINS", "BACKY_DISABLED_PLUGINS")


class Kind(Enum):
    """The kinds of plugin: the word that users see, the entry-point group, required and optional factories."""

    SOURCE = ("source", "backy.sources", ("backy_source", "backy_source_config"), ("backy_restore_target",))
    STORAGE = ("storage", "backy.storages", ("backy_storage",))
    VERIFIER = ("verifier", "backy.verifiers", ("backy_verifier",))
    HOOK = ("hook", "backy.hooks", ())
    COMMAND = ("command", "backy.commands", ())

    def __init__(self, word: str, group: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        self.word = word
        self.group = group
        self.required = required
        self.factories = required + optional


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed distribution."""

    kind: Kind
    name: str
    entry_point: EntryPoint
    distribution: str
    version: str
    switch: str | None
    """The environment variable that switches the plugin off, or None."""

    @property
    def core(self) -> bool:
        """Whether the plugin comes with backy itself."""
        return self.distribution == CORE_DISTRIBUTION

    @property
    def origin(self) -> str:
        """Distribution and version, as texts name them."""
        return f"{self.distribution} {self.version}"

    def __str__(self) -> str:
        return f"{self.kind.word} '{self.name}' of {self.origin}"


def advertised(kind: Kind) -> dict[str, list[Plugin]]:
    """Return all plugins of `kind` by name, sorted; several distributions may claim one name."""
    found = defaultdict(list)
    for entry_point in entry_points(group=kind.group):
        found[entry_point.name].append(_plugin(kind, entry_point))
    return {name: sorted(found[name], key=lambda plugin: plugin.distribution) for name in sorted(found)}


def contenders(plugins: Iterable[Plugin]) -> list[Plugin]:
    """Return which of the plugins of one name may be used; more than one is a conflict.

    Plugins that are switched off are left out, and so is a command of another distribution that has the name of one of
    backy's own.
    """
    enabled = [plugin for plugin in plugins if not plugin.switch]
    # A conflict would disable the command: no distribution must be able to take `restore` away.
    return [plugin for plugin in enabled if plugin.core and plugin.kind is Kind.COMMAND] or enabled


def conflict(candidates: Iterable[Plugin]) -> str:
    """Return a text that names the distributions which claim one name."""
    origins = " and ".join(plugin.origin for plugin in candidates)
    return f"claimed by {origins}; uninstall all but one, or put the others into BACKY_DISABLED_PLUGINS"


def _plugin(kind: Kind, entry_point: EntryPoint) -> Plugin:
    distribution, version = _origin(entry_point)
    # Switching off backy's own plugins would leave jobs without a storage; the variables are about other distributions.
    switch = None if distribution == CORE_DISTRIBUTION else _switch({entry_point.name, distribution})
    return Plugin(kind, entry_point.name, entry_point, distribution, version, switch)


def _origin(entry_point: EntryPoint) -> tuple[str, str]:
    """Return name and version of the distribution of an entry point."""
    # Damaged metadata of one distribution must not end the whole program.
    try:
        name, version = entry_point.dist.name, entry_point.dist.version  # type: ignore[union-attr]  # caught below
    except (AttributeError, TypeError, KeyError):
        name = version = None
    return name or "an unnamed distribution", version or "(no version)"


def _switch(names: set[str]) -> str | None:
    """Return the variable that switches off a plugin with these `names`, or None."""
    names = {_normalized(name) for name in names}
    allowed, disabled = (_listed(variable) for variable in SWITCHES)
    if allowed is not None and not names & allowed:
        return SWITCHES[0]
    return SWITCHES[1] if names & (disabled or set()) else None


def _listed(variable: str) -> set[str] | None:
    """Return the comma-separated names in an environment variable, or None if it is not set."""
    # Set but empty is something else: an empty BACKY_PLUGINS allows no plugin at all.
    value = os.environ.get(variable)
    return None if value is None else {_normalized(name.strip()) for name in value.split(",") if name.strip()}


def _normalized(name: str) -> str:
    """Return a name as package indexes compare it: in lower case, with dashes for dots and underscores."""
    return re.sub(r"[-_.]+", "-", name).lower()
