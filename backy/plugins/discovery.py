"""Lists the installed plugins from the metadata of their distributions, without importing any."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import Distribution, EntryPoint, EntryPoints, distributions
from pathlib import Path
from typing import NamedTuple

CORE_DISTRIBUTION = "backy"
SWITCHES = ("BACKY_PLUGINS", "BACKY_DISABLED_PLUGINS")
FOLDER = Path("/etc/backy/plugins.d")
VARIABLE = "BACKY_PLUGINS_DIR"
"""Environment variable with the folder that `--plugins-dir` names. Children of the command have it, too."""


class Kind(Enum):
    """The kinds of plugin: the word that users see, the entry-point group, required and optional factories."""

    SOURCE = ("source", "backy.sources", ("backy_source", "backy_source_config"), ("backy_restore_target",))
    STORAGE = ("storage", "backy.storages", ("backy_storage",), ("backy_storage_config",))
    VERIFIER = ("verifier", "backy.verifiers", ("backy_verifier",))
    HOOK = ("hook", "backy.hooks", ())
    COMMAND = ("command", "backy.commands", ())

    def __init__(self, word: str, group: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        self.word = word
        self.group = group
        self.required = required
        self.factories = required + optional


class Origin(NamedTuple):
    """The distribution that a plugin belongs to."""

    name: str
    version: str


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
    file: Path | None = None
    """The file of a plugin that is no part of a distribution."""

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
    """Return all plugins of `kind` by name, sorted; several distributions may claim one name.

    A distribution whose metadata can not be read has none; `unreadable` names it.
    """
    found = defaultdict(list)
    for origin, entry_points in _readable([]):
        for entry_point in entry_points.select(group=kind.group):
            found[entry_point.name].append(_plugin(kind, entry_point, origin))
    for path in _files() if kind is Kind.HOOK else ():
        entry_point = EntryPoint(path.stem, str(path), kind.group)
        found[path.stem].append(Plugin(kind, path.stem, entry_point, str(path), "(a file)", _switch({path.stem}), path))
    return {name: sorted(found[name], key=lambda plugin: plugin.distribution) for name in sorted(found)}


def unreadable() -> list[str]:
    """Return a line for each distribution that may have plugins but can not be read: its folder, and the cause."""
    lines: list[str] = []
    list(_readable(lines))
    return lines


def contenders(plugins: Iterable[Plugin]) -> list[Plugin]:
    """Return which of the plugins of one name may be used; more than one is a conflict, except of hooks.

    Plugins that are switched off are left out, and so are those of other distributions if backy itself has one of that
    kind and name.
    """
    enabled = [plugin for plugin in plugins if not plugin.switch]
    # A conflict would disable the name: no distribution may take `restore`, `chunked` or `full` away from all jobs.
    return [plugin for plugin in enabled if plugin.core] or enabled


def conflict(candidates: Iterable[Plugin]) -> str:
    """Return a text that names the distributions which claim one name."""
    origins = " and ".join(plugin.origin for plugin in candidates)
    return f"claimed by {origins}; uninstall all but one, or put the others into BACKY_DISABLED_PLUGINS"


def _files() -> Iterator[Path]:
    """Yield the plugins that are files in a folder, sorted by name; none if there is no folder."""
    folder = Path(os.environ.get(VARIABLE) or FOLDER)
    try:
        yield from (path for path in sorted(folder.iterdir()) if path.suffix == ".py")
    except OSError:
        return  # most systems have no such folder


def _readable(failures: list[str]) -> Iterator[tuple[Origin, EntryPoints]]:
    """Yield the distributions that have plugins of backy; add a line to `failures` for each that can not be read."""
    seen = set()
    for distribution in distributions():
        # Whatever is wrong with one distribution, all commands have to work.
        try:
            # Only the few that name a group of backy are parsed: every command, even `--help`, comes through here.
            if "backy." not in _entry_points_text(distribution):
                continue
            origin, entry_points = _origin(distribution), distribution.entry_points
        except Exception as error:  # noqa: BLE001  # parsers of foreign files; the cause is shown
            failures.append(f"{_place(distribution)} can not be read: {error or type(error).__name__}")
            continue
        # Of one distribution that is on the path twice, Python imports the first.
        if _normalized(origin.name) not in seen:
            seen.add(_normalized(origin.name))
            yield origin, entry_points


def _entry_points_text(distribution: Distribution) -> str:
    """Return the content of the file of entry points, or nothing if there is none."""
    text = distribution.read_text("entry_points.txt")
    # A file that may not be read looks as if it were not there.
    if text is None and isinstance(folder := _folder(distribution), Path) and (folder / "entry_points.txt").exists():
        raise PermissionError("entry_points.txt is no readable file")
    return text or ""


def _folder(distribution: Distribution) -> object:
    """Return the folder of a distribution's metadata, as far as that is known."""
    # Private, but nothing else leads an operator to the file; without it, the folder on the path has to do.
    return getattr(distribution, "_path", None) or distribution.locate_file("")


def _place(distribution: Distribution) -> str:
    return f"the distribution {_folder(distribution)}"


def _origin(distribution: Distribution) -> Origin:
    """Return name and version of a distribution. Raise ValueError if its metadata has no name."""
    name = distribution.metadata["Name"] if distribution.metadata else None
    if not name:
        raise ValueError("METADATA is missing or has no name")
    return Origin(name, distribution.metadata["Version"] or "(no version)")


def _plugin(kind: Kind, entry_point: EntryPoint, origin: Origin) -> Plugin:
    # Switching off backy's own plugins would leave jobs without a storage; the variables are about other distributions.
    switch = None if origin.name == CORE_DISTRIBUTION else _switch({entry_point.name, origin.name})
    return Plugin(kind, entry_point.name, entry_point, origin.name, origin.version, switch)


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
