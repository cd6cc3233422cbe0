"""What a job does beside backups: copies of its revisions elsewhere, or from there, scrubs and drills."""

from typing import Annotated, ClassVar

import msgspec

from backy.config import Duration, Size, format_duration
from backy.repository.config import ScheduledTag
from backy.retention.rules import Schedule
from backy.scheduler.configuration.hours import Hours


class Beside(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """What is done with a repository beside backups."""

    sla: Duration | None = None
    """How long ago it may have been done last; None for one and a half of the shortest interval."""
    hours: Hours | None = None
    """When it may begin; None for the hours of the job."""

    @property
    def words(self) -> list[str]:
        """What follows the command: options, and the argument behind `--`, as it may begin with a dash."""
        return []


class Reading(Beside, frozen=True, kw_only=True):
    """What reads all that there is to do."""

    rate: Size | None = None
    """Bytes a second, at most."""

    @property
    def words(self) -> list[str]:
        """As in `Beside`."""
        return ["--rate", str(self.rate)] if self.rate else []


class Copy(Reading, frozen=True, kw_only=True):
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


class Turn(Beside, frozen=True, kw_only=True):
    """What is done with one repository at a time, that of which it was done longest ago first."""

    name: ClassVar[str]
    """The command, and what follows the job's name."""

    @property
    def schedule(self) -> Schedule:
        """Begins early enough for one that has to wait, or takes long."""
        sla = self.sla or Duration()
        return {self.name: ScheduledTag(interval=Duration(seconds=sla.total_seconds() * 2 // 3), keep=1)}


class Scrub(Reading, Turn, frozen=True, kw_only=True):
    """How all that is stored is read again and again, as it is written below `scrub`."""

    name: ClassVar[str] = "scrub"
    sla: Duration = Duration(days=90)

    @property
    def words(self) -> list[str]:
        """As in `Beside`."""
        return [*super().words, "--", "deep"]


class Drill(Turn, frozen=True, kw_only=True):
    """How it is proved again and again that the newest revision can be restored, as it is written below `drill`."""

    name: ClassVar[str] = "drill"
    sla: Duration = Duration(days=30)
    level: Annotated[int, msgspec.Meta(ge=0, le=4)] = 2
    """How far it goes, as `Drill` of the contract has the levels."""
    within: Duration | None = None
    """How long it may take; None for what the drill allows."""

    @property
    def words(self) -> list[str]:
        """As in `Beside`."""
        within = ["--within", format_duration(self.within)] if self.within else []
        return [*within, "--level", str(self.level)]


TURNS = frozenset({Scrub.name, Drill.name})
"""Names that no copy has."""
