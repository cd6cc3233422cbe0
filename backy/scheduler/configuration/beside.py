"""What a job does beside backups: copies of its revisions elsewhere, or from there, and scrubs."""

import msgspec

from backy.config import Duration, Size
from backy.repository.config import ScheduledTag
from backy.retention.rules import Schedule
from backy.scheduler.configuration.hours import Hours

SCRUB = "scrub"
"""Name of the part of a job that reads all of its repository."""


class Beside(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """What is done with a repository beside backups."""

    sla: Duration | None = None
    """How long ago it may have been done last; None for one and a half of the shortest interval."""
    rate: Size | None = None
    """Bytes a second, at most."""
    hours: Hours | None = None
    """When it may begin; None for the hours of the job."""

    @property
    def words(self) -> list[str]:
        """What follows the command: options, and the argument behind `--`, as it may begin with a dash."""
        return ["--rate", str(self.rate)] if self.rate else []


class Copy(Beside, frozen=True, kw_only=True):
    """A copy of a job elsewhere, as it is written below `copies`, or of what is elsewhere."""

    to: str = ""
    """What `backy push` takes; the job's name follows a `/` at the end. Or what `pull` takes."""
    tags: tuple[str, ...] = ()
    """Tags of the revisions that are copied; all without any."""

    @property
    def words(self) -> list[str]:
        """As in `Beside`."""
        tags = ["--tags", ",".join(self.tags)] if self.tags else []
        return [*tags, *super().words, "--", self.to]


class Scrub(Beside, frozen=True, kw_only=True):
    """How all that is stored is read again and again, as it is written below `scrub`."""

    sla: Duration = Duration(days=90)

    @property
    def words(self) -> list[str]:
        """As in `Beside`."""
        return [*super().words, "--", "deep"]

    @property
    def schedule(self) -> Schedule:
        """Begins early enough for one that has to wait, or takes long."""
        return {SCRUB: ScheduledTag(interval=Duration(seconds=self.sla.total_seconds() * 2 // 3), keep=1)}
