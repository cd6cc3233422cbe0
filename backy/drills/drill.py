"""A drill of one revision, or of those of all disks of a machine: a plugin does it, and the result stays."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta

import msgspec

from backy.answers.images import forecast
from backy.api import Config, Drill, DrillResult
from backy.groups.group import Group
from backy.plugins.broken import error_line
from backy.plugins.discovery import Kind
from backy.plugins.events import Events
from backy.plugins.loading import call
from backy.repository.drills import Drilled, write
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision, utc_now
from backy.system.progress import quiet
from backy.text.phrases import counted

_EVIDENCE = 2**20
"""Bytes that are kept of what a drill shows: the last ones, which tell how it ended."""
Disks = Mapping[Repository, Revision]


@dataclass
class Trial:
    """A drill of one revision; `run` does it."""

    found: Repository | Group
    """The repository, or the disks of a machine."""
    config: Config
    """The plugin's section, with its name as `type`."""
    specification: str
    """SPEC of the revision."""
    level: int
    """What to reach, as `Drill` has the levels."""
    within: timedelta
    """How long the plugin may take."""
    clock: Clock = utc_now
    monotonic: Callable[[], float] = time.monotonic
    """Returns seconds."""
    events: Events | None = None
    """The plugins to notify of the end; None stands for the installed ones."""

    def run(self) -> Drilled:
        """Try to reach the level, and keep the result beside the record, whatever it is. A purge waits meanwhile.

        Raises:
            RevisionNotFoundError, DamageError: there is no such revision, or nobody can tell which one is meant.
            ConfigError, PluginError: there is no such plugin, or it refuses its section or the level.
            BackyError: the drill could not be tried; an earlier result stays.
        """
        told: dict[str, object] = {"job": self.found.job, "revision": None, "level": self.level}
        with self.events or Events.installed(self.found.config.hooks) as events:
            try:
                disks = self._disks()
                told["revision"] = next(iter(disks.values())).info
                drilled = self._drilled(disks)
            except Exception as error:
                events.tell("backy_drill_failed", **told, error=error_line(error))
                raise
            outcome = {"result": msgspec.to_builtins(drilled)} if drilled.ok else {"error": drilled.reason}
            events.tell(f"backy_drill_{'finished' if drilled.ok else 'failed'}", **told, **outcome)
        return drilled

    def _disks(self) -> Disks:
        if isinstance(self.found, Group):
            members = self.found.select(self.specification).members
            return {self.found.repository(name): revision for name, revision in members.items()}
        return {self.found: self.found.records.select_image(self.specification)}

    def _drilled(self, disks: Disks) -> Drilled:
        begun, begin, shown, kind = self.clock(), self.monotonic(), bytearray(), self.config["type"]

        def show(data: bytes) -> None:
            shown.extend(data)
            del shown[:-_EVIDENCE]

        plugin: Drill = call(Kind.DRILL, kind, "backy_drill", config=self.config, job=self.found.job)
        restore, lost = self._forecast(disks)
        # a guest may well boot without them, and could not be restored all the same
        result = DrillResult(reason=f"{counted(lost, 'chunk')} can not be restored; see 'backy plan restore'")
        if not lost:
            paths = {repository.directory: revision.id for repository, revision in disks.items()}
            result = plugin.run(paths, self.level, self.within, show)
        ok = result.reached is not None and result.reached >= self.level
        took, revision_id = self.monotonic() - begin, next(iter(disks.values())).id
        asked = {"revision": revision_id, "time": begun, "type": kind, "level": self.level}
        drilled = Drilled(**asdict(result), **asked, ok=ok, seconds=took, restore=restore)
        for repository, revision in disks.items():
            write(repository.records, revision.id, drilled, bytes(shown))
        return drilled

    def _forecast(self, disks: Disks) -> tuple[float | None, int]:
        """Return how long it takes to read all disks, None if they are empty, and the number of damaged chunks."""
        estimates, lost = list[float](), 0
        for repository, revision in disks.items():
            with repository.image(revision) as image:
                found = forecast(image, quiet, self.monotonic)
            estimates += [found.estimate] if found.estimate is not None else []
            lost += len(found.damaged)
        return sum(estimates) if estimates else None, lost
