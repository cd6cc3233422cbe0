"""The file `config` of a repository: the source, the storage, the verifier and the schedule of its job.

That of a group, the disks of one machine, has the same, with `disks` in place of the source.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self

import msgspec

from backy.api import ATTACHMENT_PATTERN, Config
from backy.config import Duration, Size, format_duration, typed, unexpected
from backy.durable import READ_ONLY, write_file
from backy.errors import ConfigError, RepositoryError
from backy.repository.revision import tag_problem
from backy.repository.sealed import FORMAT
from backy.system.safeyaml import dump_yaml, load_yaml

CONFIG = "config"
"""Name of the file."""
DISKS: Final = "disks"
"""The key that makes a `config` that of a group."""
NAME = re.compile(r"\w[\w.@+:-]{0,199}")
NAME_RULE = "letters, digits and _ . @ + : -, the first a letter, a digit or _, 200 at most"
"""What names of jobs and of disks are, which are those of folders."""
# no dot: names with one are records, maps, links, logs and files that are being written
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# plugins alone know what their keys mean: so by the name, and rather one too many, but for a path of a file
_SECRET = re.compile(rb"^[ -]*[\w-]*(token|secret|pass|credential|key)[\w-]*(?<!file):", re.MULTILINE | re.IGNORECASE)
RESERVED = {"README", "config", "in-use", "journal", "last", "mount", "quarantine", "trash"}
AttachmentName = Annotated[str, msgspec.Meta(pattern=f"^{ATTACHMENT_PATTERN.pattern}$")]
MOST_KEPT = 100_000


class PluginSection(dict[str, Any]):
    """A section that chooses a plugin by its `type`; the other keys are the plugin's own. It is as it was written."""

    _expected = "keys and values"
    CORE: ClassVar[tuple[str, ...]] = ()
    """The keys that are the core's."""

    def __init__(self, written: Config) -> None:
        """Take a section as it is written.

        Raises:
            ValueError: its `type` is missing.
        """
        if not isinstance(written.get("type"), str) or not written["type"]:
            raise ValueError("the key 'type' is missing; it names the plugin, as in 'type: file'")
        super().__init__(written)

    @classmethod
    def named(cls, name: str) -> Self:
        """Make the section of a plugin without options."""
        return cls({"type": name})

    @classmethod
    def from_plain(cls, value: object) -> Self:
        """Make a section of plain values; raises ValueError."""
        if not isinstance(value, dict):
            raise unexpected(cls._expected, value)
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"a key is wrong, expected text, got {key!r}")  # noqa: TRY004  # msgspec adds the path
        return cls(value)

    @property
    def type(self) -> str:
        """The name of the plugin."""
        return str(self["type"])

    @property
    def options(self) -> Config:
        """The keys that the plugin gets, with `type`: all but those of the core."""
        return {key: value for key, value in self.items() if key not in self.CORE}


class SourceSection(PluginSection):
    """A section that chooses a source. Its key `torn` says what becomes of an image that was written to meanwhile."""

    CORE = ("torn",)

    def __init__(self, written: Config) -> None:
        """Take a section as it is written; raises ValueError if `type` is missing or `torn` is another word."""
        super().__init__(written)
        torn = written.get("torn", "refuse")
        if torn not in ("accept", "refuse"):
            raise ValueError(f"'torn' is 'accept' or 'refuse', not {torn!r}")
        self.accepts_torn: bool = torn == "accept"
        """Whether an image is kept that was written to while it was read."""


class ShortSection(PluginSection):
    """A section that may be written as the plugin's name alone."""

    _expected = "text or keys and values"

    @classmethod
    def from_plain(cls, value: object) -> Self:
        """Make a section of plain values; raises ValueError."""
        return cls.named(value) if isinstance(value, str) else super().from_plain(value)


class VerifierSections(list[PluginSection]):
    """The sections of the job's verifiers, in their order. One may be written without a list."""

    @classmethod
    def from_plain(cls, value: object) -> Self:
        """Make the sections of plain values; raises ValueError, also if there is none."""
        if value == []:
            raise ValueError("the list is empty; the verifier 'none' compares nothing")
        return cls(map(ShortSection.from_plain, value if isinstance(value, list) else [value]))


class StorageSection(ShortSection):
    """A section that chooses a storage. Its key `name` is the folder that the storage gets in the repository."""

    CORE = ("name",)

    def __init__(self, written: Config) -> None:
        """Take a section as it is written.

        Raises:
            ValueError: its `type` is missing, or its folder can not have that name.
        """
        super().__init__(written)
        if not isinstance(self.folder, str) or not _FOLDER.fullmatch(self.folder):
            raise ValueError(
                f"the storage can not have the folder {self.folder!r}; its 'name' has letters, digits, -, _"
            )
        if self.folder in RESERVED:
            raise ValueError(f"backy itself uses the name '{self.folder}'; give the storage another 'name'")

    @property
    def folder(self) -> str:
        """The name of the storage's own folder."""
        folder: str = self.get("name", "chunks" if self.type == "chunked" else self.type)
        return folder


LONGEST_OUTAGE = Duration(days=35)
"""How long a server may be off: more is not believed of a clock, unless `longest-outage` says so."""

TRASH = Duration(days=7)
"""How long revisions stay in the trash, unless `trash` says otherwise."""


class ScheduledTag(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One tag of a schedule."""

    interval: Duration
    """The time between two backups with the tag, from one second to ten years."""
    keep: Annotated[int, msgspec.Meta(ge=1, le=MOST_KEPT)]
    """How many of them are kept, and for how many intervals each; `backy.retention.rules` explains this."""

    def __post_init__(self) -> None:
        """Refuse an interval that no schedule can have."""
        # runs are found by dividing by it, and a far longer one leads beyond the last year of the calendar
        if not Duration(seconds=1) <= self.interval <= Duration(days=3650):
            raise ValueError("an interval is at least a second and at most 3650 days")


class Quarantine(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How much evidence of damage and differences is kept; the oldest goes first."""

    size: Size = Size(256 * 2**20)
    age: Duration = Duration(days=90)


RESERVE = Size(2**20)
"""Space that is kept for commands that free some: enough to write a few hundred states."""


class JobConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The file `config` of a repository."""

    format: int
    """Version of the repository's layout."""
    id: str | None = None
    """Name of the repository that a move does not change. Made by `init`; without it, the directory's name is taken."""
    created: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """When the repository was made. The job has to keep its SLA from then on."""
    source: SourceSection | None = None
    """The source to back up: `type` names its plugin; all keys but `torn` are the plugin's. None in a mere copy."""
    storage: StorageSection = msgspec.field(default_factory=lambda: StorageSection.named("chunked"))
    """How images are kept: `type` names the storage, `name` its folder, and the other keys are its own."""
    earlier_storages: tuple[StorageSection, ...] = ()
    """The storages that the job had before, the latest first, until `convert` has emptied them; like `storage`."""
    verifier: VerifierSections | None = None
    """How fresh revisions are checked, by one verifier or a list of them; None leaves the choice to the source."""
    moment: PluginSection | None = None
    """What brings the writers to rest while snapshots are taken; None if nothing does."""
    attachments: dict[AttachmentName, str] = {}
    """What revisions get beside the image: what a program prints, by the name of the file."""
    schedule: dict[str, ScheduledTag] | None = None
    """When each tag is due and how long it is kept, as the scheduler wrote it; None without a scheduler."""
    expire: bool = True
    """Whether revisions expire by the schedule."""
    longest_outage: Duration = LONGEST_OUTAGE
    """How long the server may be off between two backups: a clock that says more is not believed."""
    reserve: Size = RESERVE
    """Space that commands get which free some if the disk is full; 0 for none."""
    quarantine: Quarantine = Quarantine()
    """How much evidence of damage and differences is kept, and how long."""
    trash: Duration = TRASH
    """How long a revision stays in the trash after it was forgotten or has expired."""
    limits: dict[str, Size] = {}
    """Bytes a second at most, of all repositories in the folder together, by what is done or where it is read from."""
    hooks: dict[str, dict[str, Any]] | None = None
    """Sections of event plugins by the plugins' names, as the scheduler wrote them."""

    def __post_init__(self) -> None:
        """Refuse tags that no revision can have, and storages that would share a folder."""
        for problem in filter(None, map(tag_problem, self.schedule or {})):
            raise ValueError(problem)
        folders = [section.folder for section in self.storages]
        for folder in folders:
            if folders.count(folder) > 1:
                raise ValueError(f"two storages would share the folder '{folder}'; give the new one another 'name'")

    @property
    def storages(self) -> tuple[StorageSection, ...]:
        """The sections of all storages, the job's own first."""
        return self.storage, *self.earlier_storages

    def moved_to(self, storage: StorageSection) -> Self:
        """Return the configuration with another storage; the present one becomes an earlier one.

        Raises:
            ConfigError: the folder belongs to a storage of another type.
        """
        for section in self.storages:
            if section.folder == storage.folder and section.type != storage.type:
                taken = f"the folder '{section.folder}' is that of the storage '{section.type}'"
                raise ConfigError(f"{taken}; give '{storage.type}' a 'name' of its own")
        # by folder, because that is where the data is: the options may have changed
        earlier = tuple(section for section in self.storages if section.folder != storage.folder)
        # at once, because two sections must not have one folder at any time
        return msgspec.structs.replace(self, storage=storage, earlier_storages=earlier)

    def replaced_by(self, config: Self) -> Self:
        """Return another configuration in which the storages of this one are known as earlier ones.

        Raises:
            ConfigError: as `moved_to`.
        """
        return msgspec.structs.replace(config, earlier_storages=self.moved_to(config.storage).earlier_storages)

    @property
    def allowance(self) -> timedelta:
        """The longest time between two backups that is believed if the server was started in between."""
        return min((tag.interval for tag in (self.schedule or {}).values()), default=timedelta()) + self.longest_outage


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
        return JobConfig(**kept, source=disk.source, longest_outage=Duration(seconds=self.allowance.total_seconds()))


def load_job(path: Path) -> JobConfig:
    """Read a repository's `config`.

    Raises:
        RepositoryError: it belongs to the 2.x line or to a newer version.
        ConfigError: it is not YAML or a key is wrong.
    """
    content = load_yaml(path)
    if isinstance(content, dict):
        if DISKS in content:
            disks = [f"-b {one.parent}" for one in sorted(path.parent.glob(f"*/{CONFIG}"))] or ["none has a backup"]
            what = "disks of one machine, and this is done with one of them"
            raise RepositoryError(f"{path.parent} has {what}: {', '.join(disks)}")
        # before the keys are checked: a wrong version is the reason why they differ
        version = content.get("format")
        if version is None and content.keys() & {"type", "source", "source-type"}:
            advice = f"install backy-upgrade, and 'backy -b {path.parent} upgrade' moves all its revisions to backy 3"
            raise RepositoryError(f"{path.parent} is a repository of backy 2: {advice}")
        if isinstance(version, int) and version != FORMAT:
            raise RepositoryError(f"{path} has format {version}; this version of backy reads {FORMAT}")
    return typed(content, JobConfig, "config")


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


def write_job(path: Path, job: JobConfig) -> None:
    """Write a repository's `config`, durably. Only its owner can read one that may have a password or a token."""
    content = dump_job(job)
    write_file(path, content, 0o600 if _SECRET.search(content) else READ_ONLY)


def dump_job(job: JobConfig) -> bytes:
    """Return the content of `config`."""
    content = msgspec.to_builtins(job, enc_hook=plain)
    # one alone needs no list, and most have one
    if len(content.get("verifier", ())) == 1:
        content["verifier"] = content["verifier"][0]
    return dump_yaml(content)


def plain(value: Duration | Size) -> object:
    """Return a value as it is written."""
    return int(value) if isinstance(value, Size) else format_duration(value)
