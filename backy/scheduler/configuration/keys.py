"""The keys of /etc/backy.conf, with their types and defaults."""

from pathlib import Path
from typing import Annotated

import msgspec

from backy.config import Duration, Size
from backy.groups.config import Disk
from backy.repository import config

STATUS = "status"
"""Name of the status file in the base directory."""


class Location(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The files of a scheduler: the keys of `global` that other commands need."""

    base_dir: Path = Path("/srv/backy")
    """Directory of the repositories, each in a folder with its job's name. The scheduler never creates it."""
    status_file: Path | None = None
    """The file that `backy check` reads; None means `status` in the base directory."""

    @property
    def status_path(self) -> Path:
        """Path of the status file."""
        return self.status_file or self.base_dir / STATUS


class Global(Location, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """The section `global`: settings of the scheduler, and defaults of the jobs."""

    worker_limit: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Largest number of backups that run at a time, for fast and for slow jobs each."""
    status_interval: Duration = Duration(seconds=30)
    """Longest time between two writes of the status file."""
    telnet_addrs: str | tuple[str, ...] = "::1, 127.0.0.1"
    """Addresses of the console, as a list or with commas; none switches it off."""
    telnet_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 6023
    """Port of the console."""
    telnet_read_only: bool = False
    """Whether the console has no commands that change anything."""
    metrics_file: Path | None = None
    """Path of the metrics for Prometheus, or None: `*.prom` for node_exporter's textfile collector."""
    backup_completed_callback: Path | None = None
    """A program that is called after each backup."""
    storage: config.StorageSection = config.StorageSection.named("chunked")
    """Storage of the images."""
    verifier: config.VerifierSections | None = None
    """Verifiers of new revisions; None leaves the choice to the source."""
    expire: bool = True
    """Whether revisions expire by the schedule."""
    trash: Duration = config.TRASH
    """How long a revision stays in the trash after it was forgotten or has expired."""
    longest_outage: Duration = config.LONGEST_OUTAGE
    """How long the server may be off between two backups: a clock that says more is not believed."""
    time_limit: Duration | None = None
    """Time after which a backup is ended; 0 or None means never."""
    standstill: Duration | None = Duration(hours=1)
    """Time without a byte read or stored after which a backup is ended; 0 or None means never."""
    max_size: Size | None = None
    """Space that a repository may take: from then on its job makes no backups; 0 or None means any."""
    reserve: Size = config.RESERVE
    """Space in each repository for commands that free some when the disk is full; 0 means none."""
    quarantine: config.Quarantine = config.Quarantine()
    """How much evidence of damage and differences each repository keeps."""


class JobKeys(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """A job as it is written below `jobs`."""

    source: config.SourceSection | None = None
    """The image to back up: `type` names the source, the other keys belong to it."""
    disks: dict[str, Disk] | None = None
    """The images of a machine with several disks, in place of `source`."""
    schedule: str
    """The name of a schedule."""
    moment: config.PluginSection | None = None
    """What brings the writers to rest while snapshots are taken."""
    attachments: dict[config.AttachmentName, str] = {}
    """What revisions get beside the image: what a program prints, by the name of the file."""
    # None where `global` has the same key, so that a job without the key can be told from one that repeats the default.
    keep: dict[str, Annotated[int, msgspec.Meta(ge=1, le=config.MOST_KEPT)]] = {}
    """Numbers of revisions to keep that differ from the schedule's, by tag."""
    storage: config.StorageSection | None = None
    verifier: config.VerifierSections | None = None
    expire: bool | None = None
    time_limit: Duration | None = None
    standstill: Duration | msgspec.UnsetType | None = msgspec.UNSET
    """None switches it off, which is not the same as a key that is not there."""
    max_size: Size | None = None
    reserve: Size | None = None
    quarantine: config.Quarantine | None = None
