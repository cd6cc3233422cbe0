"""The file `config` of a repository: what its job backs up, how images are kept, and when each tag is due."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from backy.config import Duration, format_duration, typed
from backy.errors import ConfigError, RepositoryError
from backy.revision import FORMAT
from backy.safeyaml import dump_yaml, load_yaml

NOT_UPGRADED = "this version can not read it yet; restore it with the backy that made it"
_SHORTENED = ("storage", "previous_storage", "verifier")
"""Sections for which the name of a plugin alone may stand."""
LONGEST_INTERVAL = Duration(days=3650)
MOST_KEPT = 100_000


class ScheduledTag(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One tag of a schedule."""

    interval: Duration
    """How far apart backups with the tag are, at least a second and at most ten years."""
    keep: Annotated[int, msgspec.Meta(ge=1, le=MOST_KEPT)]
    """How many of them are kept, and for how many intervals each: see `backy.retention`."""

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
    source: dict[str, Any]
    """What is backed up: `type` names the source, the other keys are the source's own."""
    storage: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "chunked"})
    """How images are kept: `type` names the storage, the other keys are its own. A name alone stands for its type."""
    previous_storage: dict[str, Any] | None = None
    """The storage that `convert` moves revisions away from, until none is left; a section like `storage`."""
    verifier: dict[str, Any] | None = None
    """How fresh revisions are checked; None leaves the choice to the source."""
    schedule: dict[str, ScheduledTag] | None = None
    """When each tag is due and how long it is kept, as the scheduler wrote it; None outside of its care."""
    expire: bool = True
    """Whether revisions expire by the schedule."""


def plugin_type(config: dict[str, Any], path: str) -> str:
    """Return the `type` of a section, which names the plugin.

    Raises:
        ConfigError: it has none.
    """
    name = config.get("type")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{path}.type: missing; it names the plugin, as in 'type: file'")
    return name


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
        content |= {key: {"type": content[key]} for key in _SHORTENED if isinstance(content.get(key), str)}
    job = typed(content, JobConfig, "config")
    plugin_type(job.source, "config.source")
    plugin_type(job.storage, "config.storage")
    if job.previous_storage is not None:
        plugin_type(job.previous_storage, "config.previous_storage")
    if job.verifier is not None:
        plugin_type(job.verifier, "config.verifier")
    return job


def dump_job(job: JobConfig) -> bytes:
    """Return the content of `config`."""
    return dump_yaml(msgspec.to_builtins(job, enc_hook=format_duration))
