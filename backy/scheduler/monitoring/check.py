"""What is known of a scheduler from outside, and the verdict of `backy check` on it in the format of Nagios plugins."""

from collections.abc import Iterator, Sequence, Sized
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from backy.config import format_duration
from backy.errors import BackyError
from backy.repository.revision import Clock, utc_now
from backy.scheduler.configuration.beside import TURNS
from backy.scheduler.configuration.configuration import JobEntry, load
from backy.scheduler.configuration.location import STATUS, load_location
from backy.scheduler.monitoring.status import NO_END, JobStatus, Status, age_allowed, read, space
from backy.scheduler.process.base_directory import NotAllowedError, SilentError, ask
from backy.text.phrases import counted, length_of_time, local_time, size

PATIENCE = timedelta(seconds=5)
"""How long a scheduler may take to answer: it has nothing to do that takes as long, and monitoring waits."""

_UNWRITTEN = "no scheduler has written it since"
PUT_OFF = timedelta(days=7)
"""How long nobody needs to know that expiry and purge wait: a mount or a restore may take days."""

NEARLY = 0.9
"""Part of its `max-size` from which on a repository is warned of."""

MOST_LINES = 50
"""Details of this many jobs are printed; the others are counted."""


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


def recorded(configuration: Path, clock: Clock = utc_now) -> Recorded:
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


class State(IntEnum):
    """The states of a check. Each value is an exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Verdict(NamedTuple):
    """The result of a check."""

    state: State
    summary: str
    performance: str = ""
    findings: tuple[str, ...] = ()
    """What somebody should look at, the most urgent first."""
    heads: tuple[str, ...] = ()
    """The last lines of all journals."""

    @property
    def details(self) -> tuple[str, ...]:
        """The lines below the first one."""
        return *self.findings, *self.heads

    def __str__(self) -> str:
        first = f"{self.state.name}: {self.summary}" + (f" | {self.performance}" if self.performance else "")
        return "\n".join([first, *self.details])


def examine(configuration: Path, clock: Clock = utc_now) -> Verdict:
    """Return the verdict on the scheduler of `configuration` and its jobs, as of now."""
    try:
        return judge(recorded(configuration, clock))
    except (BackyError, OSError) as error:
        return Verdict(State.UNKNOWN, str(error))


def judge(found: Recorded) -> Verdict:
    """Return the verdict on what is known of a scheduler."""
    status = found.status
    performance = _performance(status)
    # An outdated file says nothing about the jobs, however good they look in it.
    if found.stale:
        return Verdict(State.CRITICAL, found.stale, performance)
    overdue = [job for job in status.jobs if job.sla_overdue]
    kinds = {(verb, f"{verb}s"): [job for job in status.jobs if job.verb == verb] for verb in sorted(TURNS)}
    kinds = {("copy", "copies"): [job for job in status.jobs if job.copy], **kinds}
    # Silence is not critical as long as the file is new: a restart takes some seconds.
    warnings = [*filter(None, [found.silence]), *_general(status)]
    # Before all that is less urgent: of each kind, so many lines are printed.
    warnings += [line for job in status.jobs for line in _failing(job)]
    warnings += [line for job in status.jobs for line in _warnings(job, found.now)]
    tampered = [line for job in status.jobs for line in _tampered(job)]
    worst: dict[str, Sized] = {
        "changed by somebody else than backy": tampered,
        "not within SLA": [job for job in overdue if job.verb == "backup"],
        "not backed up, as the disk is full": [job for job in status.jobs if job.full],
    }
    critical = [f"{counted(len(found), 'job')} {how}" for how, found in worst.items() if found]
    for words, one in kinds.items():
        if old := sum(job.sla_overdue > 0 for job in one):
            critical.append(f"{old} of {counted(len(one), *words)} not within SLA")
    jobs = counted(len(status.jobs) - sum(map(len, kinds.values())), "job")
    within = f"{' and '.join([jobs, *(counted(len(one), *words) for words, one in kinds.items() if one)])} within SLA"
    if status.copies:
        within += f" and {counted(len(status.copies), 'repository', 'repositories')} without a job"
    summary = ", ".join(critical) or (f"{within}, {counted(len(warnings), 'warning')}" if warnings else within)
    # Warnings are printed whatever decides: one may be the cause. The heads of the journals come last, each time: who
    # keeps the output of checks can tell later that a journal was written anew.
    ends = {name: head for job in status.jobs for name, head in job.heads.items()}
    heads = [f"{name}: journal {head.job} {head.number} {head.hash}" for name, head in ends.items()]
    findings = [line for kind in (tampered, [*map(late, overdue)], warnings) for line in _first(kind)]
    state = State.CRITICAL if critical else State.WARNING if warnings else State.OK
    return Verdict(state, summary, performance, tuple(findings), tuple(_first(heads)))


def told(job: JobStatus, now: datetime) -> list[str]:
    """Return all that is said of a job at `now`, the most urgent first."""
    return [*_tampered(job), *([late(job)] if job.sla_overdue else []), *_failing(job), *_warnings(job, now)]


def _tampered(job: JobStatus) -> Iterator[str]:
    if job.tampering:
        yield f"{job.job}: {_first_of(job.tampering, 'finding')}"


def _first_of(found: Sequence[str], what: str) -> str:
    """Return the first of some texts, and how many more there are."""
    return found[0] + (f" and {counted(len(found) - 1, f'more {what}')}" if len(found) > 1 else "")


def late(job: JobStatus) -> str:
    """Return what is said of a job that does not keep its SLA."""
    since = f" since {local_time(job.failing_since, zone=True)}" if job.failing_since else ""
    failures = f"{counted(job.failures, 'failure')}{since}: " if job.failures else ""
    why = f", {failures}{job.error}" if job.error else ""
    return f"{job.job} (last time: {local_time(job.last_time, zone=True)}{why})"


def _general(status: Status) -> Iterator[str]:
    """Yield the warnings about the scheduler itself."""
    if status.configuration_error:
        since = local_time(status.loaded, zone=True)
        yield f"the configuration as of {since} is in force, for the newer one is wrong: {status.configuration_error}"
    if status.disk and status.disk.low_since:
        yield space(status.disk)
    yield from status.problems
    yield from (f"broken plugin: {plugin}" for plugin in status.plugins)


def _failing(job: JobStatus) -> Iterator[str]:
    """Yield what fails of a job, from the first failure on."""
    if job.failing_since and not (job.sla_overdue and job.failures):
        since = local_time(job.failing_since, zone=True)
        times = f", {counted(job.failures, 'time')} in a row" if job.failures else ""
        yield f"{job.job}: fails since {since}{times}: {job.error}"


def _warnings(job: JobStatus, now: datetime) -> Iterator[str]:
    """Yield the warnings about a job, which may keep its SLA all the same."""
    if job.paused and job.paused > now:
        end = "somebody resumes it" if job.paused == NO_END else local_time(job.paused, zone=True)
        yield f"{job.job}: paused until {end}: it makes no backups"
    if job.put_off_since and now - job.put_off_since > PUT_OFF:
        since = local_time(job.put_off_since, zone=True)
        yield f"{job.job}: nothing is expired or purged since {since}: other commands use the repository"
    if job.running_since and now - job.running_since > timedelta(seconds=job.interval):
        since, interval = local_time(job.running_since, zone=True), format_duration(timedelta(seconds=job.interval))
        yield f"{job.job}: its run of {since} takes longer than its interval of {interval}"
    if job.max_size and job.occupied is not None and job.occupied >= job.max_size * NEARLY:
        yield f"{job.job}: its repository takes {size(job.occupied)}, and max-size is {size(job.max_size)}"
    if job.partly_verified:
        since = local_time(job.compared_since, zone=True)
        earlier = f"all was compared since {since}" if job.compared_since else "a part of it never was"
        yield f"{job.job}: the newest revision is {job.verification}; {earlier}"
    if job.remarks:
        yield f"{job.job}: a remark on the newest revision: {_first_of(job.remarks, 'remark')}"
    if job.unfrozen:
        yield f"{job.job}: the newest revision is inconsistent: the source could not be brought to rest"
    elif job.consistency == "none":
        yield f"{job.job}: the newest revision is inconsistent: the source was written to while it was read"
    if job.waiting:
        yield f"{job.job}: {counted(job.waiting, 'revision waits', 'revisions wait')} to expire"
    yield from unsound(job)


def unsound(job: JobStatus) -> Iterator[str]:
    """Yield the warnings about revisions of a job, its older ones included."""
    if job.quarantine_reports:
        yield f"{job.job}: {counted(job.quarantine_reports, 'report')} of damage or differences in quarantine"
    if job.distrusted:
        yield f"{job.job}: {counted(job.distrusted, 'revision is', 'revisions are')} distrusted"
    if job.wrong:
        what = counted(job.wrong, "revision is", "revisions are")
        yield f"{job.job}: {what} wrong: the source hid a change, 'backy status' names them"
    if job.ahead:
        more = f" and {len(job.ahead) - 1} more" if len(job.ahead) > 1 else ""
        yield f"{job.job}: ahead of the clock, so that the schedule does not count it: revision {job.ahead[-1]}{more}"
    yield from (f"{job.job}: {line}" for line in job.pinned)
    if job.drill_problem:
        yield f"{job.job}: the drill of {local_time(job.drilled, zone=True)} failed: {job.drill_problem}"
    if job.unreadable:
        yield f"{job.job}: {counted(job.unreadable, 'record is', 'records are')} damaged"


def _performance(status: Status) -> str:
    """Return the figures as `name=value[unit]`."""
    # Programs that draw graphs match figures by position: add new ones at the end.
    jobs = status.jobs
    figures: dict[str, object] = {"jobs": len(jobs), "overdue": sum(job.sla_overdue > 0 for job in jobs)}
    figures["most_overdue"] = f"{max((job.sla_overdue for job in jobs), default=0):.0f}s"
    figures["failing"] = sum(job.failures > 0 for job in jobs)
    figures |= {name: sum(getattr(one, name) for one in status.pools.values()) for name in ("running", "queued")}
    figures |= {name: sum(getattr(job, name) for job in jobs) for name in ("quarantine_reports", "distrusted", "wrong")}
    figures |= {"free": f"{status.disk.free}B"} if status.disk else {}
    figures |= {"copies": len(status.copies)} if status.copies else {}
    return " ".join(f"{name}={value}" for name, value in figures.items())


def _first(lines: list[str]) -> Iterator[str]:
    """Yield the first `MOST_LINES` lines and how many more there are."""
    # A vertical bar would begin performance data.
    yield from (line.replace("|", "/") for line in lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        yield f"... and {len(lines) - MOST_LINES} more; 'backy jobs --json' shows all"
