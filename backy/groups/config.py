"""The file `config` of a group: what `config` of a repository has, with `disks` in place of the source."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from backy.config import Duration, typed
from backy.errors import ConfigError
from backy.repository.config import RESERVED, JobConfig, SourceSection, StorageSection, VerifierSections
from backy.repository.sealed import FORMAT
from backy.system.safeyaml import load_yaml

DISKS: Final = "disks"
"""The key that makes a `config` that of a group."""
NAME = re.compile(r"\w[\w.@+:-]{0,199}")
NAME_RULE = "letters, digits and _ . @ + : -, the first a letter, a digit or _, 200 at most"
"""What names of jobs and of disks are, which are those of folders."""


class Disk(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """One of `disks`."""

    source: SourceSection | None = None
    """The image to back up; None for copies, of which none is."""
    storage: StorageSection | None = None
    """How images of it are kept; None for the group's."""
    verifier: VerifierSections | None = None
    """How fresh revisions of it are checked; None for the group's."""


class GroupConfig(JobConfig, kw_only=True):
    """The file `config` of a group."""

    disks: dict[str, Disk]
    """The disks by their names, which are those of their repositories."""

    def __post_init__(self) -> None:
        """Refuse a group without disks, names that no folder can have here, and a source beside the disks."""
        super().__post_init__()
        if not self.disks or self.source is not None:
            raise ValueError("'disks' has the disks of a machine by their names, each with a 'source' of its own")
        for name in self.disks:
            if problem := name_problem(name):
                raise ValueError(problem)

    def of(self, name: str) -> JobConfig:
        """Return the configuration of a disk's repository. All of the group expires together, so it has no schedule."""
        disk = self.disks[name]
        names = ("format", "expire", "reserve", "quarantine", "trash", "limits", "hooks")
        kept = {name: getattr(self, name) for name in names}
        # they are the machine's, and its last disk is the first one to be read after the snapshots
        if name == [*self.disks][-1]:
            kept["attachments"] = self.attachments
        kept |= {"storage": disk.storage or self.storage, "verifier": disk.verifier or self.verifier}
        outage = Duration(seconds=self.allowance.total_seconds())
        return JobConfig(**kept, source=disk.source, longest_outage=outage)


def with_disks(config: JobConfig, disks: Mapping[str, Disk]) -> GroupConfig:
    """Return a configuration as that of a machine with these disks."""
    return GroupConfig(**{**msgspec.structs.asdict(config), "disks": dict(disks)})


def name_problem(name: str) -> str | None:
    """Return why no disk can have a name; None if one can."""
    if not NAME.fullmatch(name) or name.endswith(".rev"):
        return f"{name!r} can be no disk: its name is that of its folder, with {NAME_RULE}"
    return f"backy itself uses the name '{name}'; call the disk otherwise" if name in RESERVED else None


def load_group(path: Path) -> GroupConfig | None:
    """Read the `config` of a group; return None if it is that of a repository, or there is none.

    Raises:
        ConfigError: it is not YAML, or a key is wrong.
    """
    try:
        content = load_yaml(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not isinstance(content, dict) or DISKS not in content:
        return None
    if content.get("format") != FORMAT:
        raise ConfigError(f"{path}: 'format' is {FORMAT} in this version of backy")
    return typed(content, GroupConfig, "config")
