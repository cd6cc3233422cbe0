"""What is known of a scheduler from outside: its status file, and whether it answers."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from backy.errors import BackyError
from backy.repository.revision import utc_now
from backy.scheduler.configuration.configuration import JobEntry, load, load_location
from backy.scheduler.configuration.keys import STATUS
from backy.scheduler.monitoring.status import Status, age_allowed, read
from backy.scheduler.process.asking import NotAllowedError, SilentError, ask
from backy.text.phrases import length_of_time, local_time

PATIENCE = timedelta(seconds=5)
"""How long a scheduler may take to answer: it has nothing to do that takes as long, and monitoring waits."""

_UNWRITTEN = "no scheduler has written it since"


class Recorded(NamedTuple):
    """A status file, and the scheduler that writes it."""

    path: Path
    status: Status
    """The status with the verdicts of `now`."""
    written: datetime
    """When the file was written."""
    now: datetime
    silence: str | None
    """Why no scheduler answers; None if one does, or if this user may not ask."""

    @property
    def age(self) -> timedelta:
        """The age of the file; less than zero if the clock was ahead when it was written."""
        return self.now - self.written

    @property
    def stale(self) -> str | None:
        """What is wrong with the age of the file; None if nothing is."""
        if abs(self.age) <= age_allowed(self.status.interval):
            return None
        return f"Status file {self.path} is {self._aged('old')}, and {self.silence or _UNWRITTEN}"

    @property
    def doubt(self) -> str | None:
        """Why the status may be out of date, with its time; None if a scheduler keeps it up to date."""
        if not (self.silence or self.stale):
            return None
        return f"as of {local_time(self.written, zone=True)}, {self._aged('ago')}: {self.silence or _UNWRITTEN}"

    def _aged(self, old: str) -> str:
        """Return the age in words, whichever side of the clock it is on."""
        age = length_of_time(abs(self.age).total_seconds())
        return f"{age} {old if self.age >= timedelta() else 'ahead of the clock'}"


def job_of(directory: Path, default: Path) -> JobEntry | None:
    """Return the job that a scheduler of this machine has for the repository in `directory`; None if none is known.

    `default` is where the configuration is unless the base directory tells of another one.
    """
    directory = directory.resolve()
    paths = [default]
    # The scheduler of a base directory tells there what its configuration is.
    with suppress(BackyError, OSError):
        paths.insert(0, Path(read(directory.parent / STATUS).configuration))
    for path in paths:
        # Others will tell what is wrong with it.
        with suppress(BackyError):
            for job in load(path).jobs.values():
                if job.directory.resolve() == directory:
                    return job
    return None


def recorded(configuration: Path, clock: Callable[[], datetime] = utc_now) -> Recorded:
    """Find and read the status file, and ask the scheduler for a sign of life.

    Raises:
        BackyError: there is no status file or none of this version, or the configuration does not tell where it is.
        OSError: it can not be read.
    """
    location = load_location(configuration)
    path = location.status_path
    # Taken before the content: a file that is replaced in between counts as older than it is, never as newer.
    try:
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        status, now = read(path), clock()
    except FileNotFoundError:
        raise BackyError(f"no status file found at {path}; 'backy scheduler' writes it") from None
    return Recorded(path, status.at(now), written, now, _silence(location.base_dir))


def _silence(base_dir: Path) -> str | None:
    """Return why no scheduler answers; None if one does, or if nobody can tell."""
    try:
        # Any command would do; this one has an answer that does not grow with the jobs.
        ask(base_dir, ["help"], PATIENCE)
    except NotAllowedError:
        return None
    except SilentError as error:
        return str(error)
    return None
