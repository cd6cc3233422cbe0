"""Which plugins are installed: read from the metadata of the installed distributions, without importing any."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import EntryPoint, entry_points

CORE_DISTRIBUTION = "backy"


class Kind(Enum):
    """The kinds of plugin: the word that users see, the entry-point group, and the hooks that the group must have."""

    SOURCE = ("source", "backy.sources", ("backy_source", "backy_source_config"))
    STORAGE = ("storage", "backy.storages", ("backy_storage",))
    VERIFIER = ("verifier", "backy.verifiers", ("backy_verifier",))
    HOOK = ("hook", "backy.hooks", ())
    COMMAND = ("command", "backy.commands", ())

    def __init__(self, word: str, group: str, required: tuple[str, ...]) -> None:
        self.word = word
        self.group = group
        self.required = required


@dataclass(frozen=True)
class Plugin:
    """One entry point as its distribution advertises it."""

    kind: Kind
    name: str
    entry_point: EntryPoint
    distribution: str
    version: str
    disabled: bool

    @property
    def origin(self) -> str:
        """Distribution and version as messages name them."""
        return f"{self.distribution} {self.version}"


def advertised(kind: Kind) -> dict[str, list[Plugin]]:
    """Return every plugin of `kind` by name, in order of names; more than one for a name is a conflict."""
    found = defaultdict(list)
    for entry_point in entry_points(group=kind.group):
        found[entry_point.name].append(_plugin(kind, entry_point))
    return {name: sorted(found[name], key=lambda plugin: plugin.distribution) for name in sorted(found)}


def _plugin(kind: Kind, entry_point: EntryPoint) -> Plugin:
    distribution = entry_point.dist.name if entry_point.dist else "unknown"
    version = entry_point.dist.version if entry_point.dist else "unknown"
    disabled = distribution != CORE_DISTRIBUTION and _switched_off({entry_point.name, distribution})
    return Plugin(kind, entry_point.name, entry_point, distribution, version, disabled)


def _switched_off(names: set[str]) -> bool:
    """Tell whether the environment forbids a plugin known by `names`: its own and its distribution's."""
    allowed = _listed("BACKY_PLUGINS")
    return (allowed is not None and not names & allowed) or bool(names & (_listed("BACKY_DISABLED_PLUGINS") or set()))


def _listed(variable: str) -> set[str] | None:
    """Return the comma-separated names in an environment variable, None where it is not set."""
    value = os.environ.get(variable)
    return None if value is None else {name.strip() for name in value.split(",") if name.strip()}
