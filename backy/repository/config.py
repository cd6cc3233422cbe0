"""The file `config` of a repository: what its job backs up, how images are kept, and when each tag is due."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

import msgspec

from backy.api import Config
from backy.config import Duration, format_duration, typed, unexpected
from backy.errors import RepositoryError
from backy.repository.revision import FORMAT
from backy.system.safeyaml import dump_yaml, load_yaml

NOT_UPGRADED = "this version can not read it yet; restore it with the backy that made it"
LONGEST_INTERVAL = Duration(days=3650)
MOST_KEPT = 100_000


class PluginSection:
    """A section that chooses a plugin by its `type`; the other keys are the plugin's own."""

    __slots__ = ("written",)

    def __init__(self, written: Config) -> None:
        """Take a section as it is written.

        Raises:
            ValueError: its `type` is missing.
        """
        if not isinstance(written.get("type"), str) or not written["type"]:
            raise ValueError("the key 'type' is missing; it names the plugin, as in 'type: file'")
        # all of it, in its own order: that is what the plugin gets, and what is written back to `config`
        self.written = written

    @classmethod
    def named(cls, name: str) -> Self:
        """Make the section of a plugin that is told nothing but its name."""
        return cls({"type": name})

    @classmethod
    def from_plain(cls, value: object) -> Self:
        """Make a section of what was read; raises ValueError."""
        if not isinstance(value, dict):
            raise unexpected("keys and values", value)
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"a key is wrong, expected text, got {key!r}")  # noqa: TRY004  # msgspec adds the path
        return cls(value)

    @property
    def type(self) -> str:
        """The name of the plugin."""
        name: str = self.written["type"]
        return name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PluginSection) and self.written == other.written

    def __hash__(self) -> int:
        return hash(self.type)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.written!r})"


class ShortSection(PluginSection):
    """A section for which the name of its plugin alone may be written."""

    __slots__ = ()

    @classmethod
    def from_plain(cls, value: object) -> Self:
        """Make a section of what was read; raises ValueError."""
        if isinstance(value, str):
            return cls.named(value)
        if not isinstance(value, dict):
            raise unexpected("text or keys and values", value)
        return super().from_plain(value)


class ScheduledTag(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One tag of a schedule."""

    interval: Duration
    """How far apart backups with the tag are, at least a second and at most ten years."""
    keep: Annotated[int, msgspec.Meta(ge=1, le=MOST_KEPT)]
    """How many of them are kept, and for how many intervals each: see `backy.retention.rules`."""

    def __post_init__(self) -> None:
        """Refuse what no schedule can be made of."""
        if not Duration(seconds=1) <= self.interval <= LONGEST_INTERVAL:
            raise ValueError("an interval is at least a second and at most 3650 days")


class JobConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The file `config` of a repository."""

    format: int
    """Version of the repository's layout."""
    id: str | None = None
    """What names the repository wherever it is moved to; made by `init`, the directory's name where it is missing."""
    created: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """When the repository was made: from then on the job has to keep its SLA."""
    source: PluginSection
    """What is backed up: `type` names the source, the other keys are the source's own."""
    storage: ShortSection = msgspec.field(default_factory=lambda: ShortSection.named("chunked"))
    """How images are kept: `type` names the storage, the other keys are its own. A name alone stands for its type."""
    previous_storage: ShortSection | None = None
    """The storage that `convert` moves revisions away from, until none is left; a section like `storage`."""
    verifier: ShortSection | None = None
    """How fresh revisions are checked; None leaves the choice to the source."""
    schedule: dict[str, ScheduledTag] | None = None
    """When each tag is due and how long it is kept, as the scheduler wrote it; None outside of its care."""
    expire: bool = True
    """Whether revisions expire by the schedule."""


def load_job(path: Path) -> JobConfig:
    """Read a repository's `config`.

    Raises:
        RepositoryError: it belongs to the 2.x line or to a newer version.
        ConfigError: it is not YAML or a key is wrong.
    """
    content = load_yaml(path)
    if isinstance(content, dict):
        version = content.get("format")
        if version is None and content.keys() & {"type", "source", "source-type"}:
            raise RepositoryError(f"{path.parent} is a repository of backy 2: {NOT_UPGRADED}")
        if isinstance(version, int) and version != FORMAT:
            raise RepositoryError(f"{path} has format {version}; this version of backy reads {FORMAT}")
    return typed(content, JobConfig, "config")


def dump_job(job: JobConfig) -> bytes:
    """Return the content of `config`."""
    return dump_yaml(msgspec.to_builtins(job, enc_hook=_plain))


def _plain(value: PluginSection | Duration) -> object:
    return value.written if isinstance(value, PluginSection) else format_duration(value)
