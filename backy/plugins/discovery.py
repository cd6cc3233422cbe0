"""Lists the installed plugins from the metadata of distributions. None is imported before its `load` is called."""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.metadata import Distribution, EntryPoint, EntryPoints, PathDistribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click

from backy.plugins.broken import BrokenPluginError, blamed

CORE_DISTRIBUTION = "backy"
_Found = tuple[str, str, EntryPoints]
"""Name, version and entry points of a distribution."""
SWITCHES = {"BACKY_PLUGINS": False, "BACKY_DISABLED_PLUGINS": True}
"""Environment variables with names of plugins, and whether they switch off those that are named or all others."""

FOLDER = Path("/etc/backy/plugins.d")
VARIABLE = "BACKY_PLUGINS_DIR"
"""Environment variable with the folder that `--plugins-dir` names. Children of the command have it, too."""


class Kind(Enum):
    """The kinds of plugin: the word that users see, required and optional factories."""

    SOURCE = ("source", ("backy_source", "backy_source_config"), ("backy_live_restore", "backy_restore_target"))
    STORAGE = ("storage", ("backy_storage",), ("backy_storage_config",))
    VERIFIER = ("verifier", ("backy_verifier",))
    MOMENT = ("moment", ("backy_moment",))
    DRILL = ("drill", ("backy_drill",))
    HOOK = ("hook",)
    COMMAND = ("command",)

    def __init__(self, word: str, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> None:
        self.word = word
        self.group = f"backy.{word}s"
        self.required = required
        self.factories = required + optional


ELSEWHERE: Final = {
    (Kind.SOURCE, "file"): "backy-sources-file",
    (Kind.SOURCE, "ceph-rbd"): "backy-sources-ceph",
    (Kind.SOURCE, "lvm"): "backy-sources-lvm",
    (Kind.SOURCE, "nbd"): "backy-sources-qemu",
    (Kind.SOURCE, "qemu"): "backy-sources-qemu",
    (Kind.MOMENT, "guest-agent"): "backy-sources-qemu",
    (Kind.SOURCE, "flyingcircus"): "backy-sources-flyingcircus",
    (Kind.STORAGE, "chunked"): "backy-storages-chunked",
    (Kind.STORAGE, "cow"): "backy-storages-cow",
    (Kind.DRILL, "qemu"): "backy-drills",
    (Kind.COMMAND, "files"): "backy-files",
    (Kind.COMMAND, "upgrade"): "backy-upgrade",
}
"""Plugins of backy's own that are distributions beside this one."""


class PluginFile(EntryPoint):
    """An event plugin that is a single file in a folder, without a package; its `value` is the path."""

    def load(self) -> ModuleType:
        """Run the file and return it as a module. Raise the same errors as `opened`."""
        # What was checked is what is run, even if the file is replaced meanwhile.
        with os.fdopen(opened(Path(self.value)), "rb") as stream:
            code = compile(stream.read(), self.value, "exec", dont_inherit=True)
        module = ModuleType(self.name)
        module.__file__ = self.value
        exec(code, vars(module))  # noqa: S102  # running it is what it is there for
        return module


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed distribution."""

    kind: Kind
    name: str
    value: str
    """What the entry point names, or the path of a plugin that is a single file."""
    distribution: str
    """The name of the distribution, or the path again."""
    version: str

    def load(self) -> Any:  # noqa: ANN401  # an entry point may name anything
        """Import what the entry point names: a click command, or an object with hooks.

        Raises:
            BrokenPluginError: importing it failed, or a command is something else.
        """
        # The entry point itself was chosen, with its distribution. To search for it by its name again could find that
        # of another distribution, or one of an outdated cache.
        with blamed(self):
            found = self.entry_point.load()
        if self.kind is Kind.COMMAND and not isinstance(found, click.Command):
            raise BrokenPluginError(self, f"'{self.value}' is no click command")
        return found

    @property
    def entry_point(self) -> EntryPoint:
        """What imports the plugin."""
        # No distribution can name a path that begins with a slash.
        kind = PluginFile if self.value.startswith("/") else EntryPoint
        return kind(self.name, self.value, self.kind.group)

    @property
    def ours(self) -> bool:
        """Whether the plugin is backy's own, be it in this distribution or in one beside it."""
        return self.distribution in {CORE_DISTRIBUTION, ELSEWHERE.get((self.kind, self.name))}

    @property
    def core(self) -> bool:
        """Whether what backy does by default needs the plugin."""
        return self.distribution in {CORE_DISTRIBUTION, ELSEWHERE[Kind.STORAGE, "chunked"]}

    @property
    def switch(self) -> str | None:
        """The environment variable that switches the plugin off, or None."""
        # Without these jobs would have no storage and no verifier; the variables are about other plugins.
        names = {_normalized(self.name), _normalized(self.distribution)}
        for variable, named_are_off in SWITCHES.items() if not self.core else ():
            listed = os.environ.get(variable)
            # Set but empty is something else than not set: an empty BACKY_PLUGINS allows no plugin at all.
            if listed is not None and named_are_off == bool(names & {_normalized(one) for one in listed.split(",")}):
                return variable
        return None

    @property
    def origin(self) -> str:
        """Distribution and version, as texts name them."""
        return f"{self.distribution} {self.version}"

    def __str__(self) -> str:
        return f"{self.kind.word} '{self.name}' of {self.origin}"


def opened(path: Path) -> int:
    """Open a plugin's file and return the descriptor, which the plugin is run from.

    Raises:
        PermissionError: the file or a folder above it is a link, belongs to somebody else, or can be changed by others.
        OSError: it can not be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    # The folders after the file: who could have put another one in its place can still be seen.
    for place, found in [(path, os.fstat(descriptor)), *((folder, folder.lstat()) for folder in path.parents)]:
        if cause := _untrusted(found):
            os.close(descriptor)
            raise PermissionError(f"{path} is not run, as {place} {cause}")
    return descriptor


def _untrusted(found: os.stat_result) -> str | None:
    """Return why somebody else could change a file, or what lies in a folder; None if nobody can."""
    # Under sudo the caller's own files would run as root without a password.
    owners = {0} if "SUDO_UID" in os.environ else {0, os.geteuid()}
    if found.st_uid not in owners:
        return "belongs to somebody else"
    # In a sticky folder, such as /tmp, others can make files but not rename what is not theirs.
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    # A link can be changed by others as well, as its mode says.
    return "can be changed by others" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky else None


def advertised(kind: Kind) -> dict[str, list[Plugin]]:
    """Return all plugins of `kind` by name, sorted; several distributions may claim one name.

    A distribution whose metadata can not be read has none; `unreadable` names it.
    """
    found = defaultdict(list)
    for name, version, entry_points in (one for one in _readable() if not isinstance(one, str)):
        for one in entry_points.select(group=kind.group):
            found[one.name].append(Plugin(kind, one.name, one.value, name, version))
    folder = Path(os.environ.get(VARIABLE) or FOLDER).absolute()
    for path in sorted(folder.glob("*.py")) if kind is Kind.HOOK else ():
        found[path.stem].append(Plugin(kind, path.stem, str(path), str(path), "(a file)"))
    return {name: sorted(found[name], key=lambda plugin: plugin.distribution) for name in sorted(found)}


def unreadable() -> list[str]:
    """Return a line for each distribution that may have plugins but can not be read: its folder, and the cause."""
    return [line for line in _readable() if isinstance(line, str)]


def contenders(plugins: Iterable[Plugin]) -> list[Plugin]:
    """Return which of the plugins of one name may be used; more than one is a conflict, except of hooks.

    Plugins that are switched off are left out, and so are those of others if backy has one of that kind and name.
    """
    enabled = [plugin for plugin in plugins if not plugin.switch]
    # A conflict would disable the name: no distribution may take `restore`, `file` or `full` away from all jobs.
    return [plugin for plugin in enabled if plugin.ours] or enabled


def conflict(candidates: Iterable[Plugin]) -> str:
    """Return a text that names the distributions which claim one name."""
    origins = " and ".join(plugin.origin for plugin in candidates)
    return f"claimed by {origins}; uninstall all but one, or put the others into BACKY_DISABLED_PLUGINS"


def _readable() -> Iterator[_Found | str]:
    """Yield the distributions that have plugins of backy, and a line for each that can not be read."""
    seen = set()
    for distribution in distributions():
        # Whatever is wrong with one distribution, all commands have to work.
        try:
            folder = getattr(distribution, "_path", None)
            found = _read(folder, _changed(folder)) if isinstance(folder, Path) else _parsed(distribution)
        except Exception as error:  # noqa: BLE001  # parsers of foreign files; the cause is shown
            yield f"the distribution {_folder(distribution)} can not be read: {error or type(error).__name__}"
            continue
        # Of one distribution that is on the path twice, Python imports the first.
        if found and (normalized := _normalized(found[0])) not in seen:
            seen.add(normalized)
            yield found


def _changed(folder: Path) -> tuple[int, ...]:
    """Tell when the files that are read of a distribution were changed, or their modes."""
    times: list[int] = []
    names = ("entry_points.txt", "PKG-INFO" if folder.suffix == ".egg-info" else "METADATA")
    with suppress(OSError):  # most have no entry points, and so are not for backy
        times.extend(os.stat(f"{folder}/{name}").st_ctime_ns for name in names)  # noqa: PTH116  # a third of the time
    return tuple(times)


@cache
def _read(folder: Path, changed: tuple[int, ...]) -> _Found | None:
    """Return what `_parsed` does, which takes far longer; a command asks several times, a scheduler always anew."""
    return _parsed(PathDistribution(folder))


def _parsed(distribution: Distribution) -> _Found | None:
    """Return name, version and entry points of a distribution, or None if it has no plugins of backy."""
    # Only the few that name a group of backy are parsed: every command, even `--help`, comes through here.
    if "backy." not in _entry_points_text(distribution):
        return None
    # once: it is parsed anew whenever it is asked for
    metadata = distribution.metadata
    if not (metadata and metadata["Name"]):
        raise ValueError("METADATA is missing or has no name")
    return metadata["Name"], metadata["Version"] or "(no version)", distribution.entry_points


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


def _normalized(name: str) -> str:
    """Return a name as package indexes compare it: in lower case, with dashes for dots and underscores."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
