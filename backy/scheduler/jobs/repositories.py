"""The repositories of jobs: gives them their configuration, and sums up what they hold.

The scheduler compares configurations and a child of it writes, because plugins have to accept what is written: one that
hangs, or that ends its process, must not harm the scheduler. A summary is read again only if a repository has changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import shortuuid

from backy.answers.replay import History, findings, replay
from backy.answers.space import occupied
from backy.config import typed
from backy.errors import BackyError, ConfigError, RepositoryError
from backy.groups.group import Group, opened, require
from backy.integrity import quarantine
from backy.repository.config import CONFIG, DISKS, GroupConfig, JobConfig, dump_job, load_group, with_disks, write_job
from backy.repository.drills import kept
from backy.repository.journal import JOURNAL, UNREAD, Head, Journal, decode, facts_of
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import MANUAL, PINNED, Revision, utc_now
from backy.retention.rules import read_mark
from backy.scheduler.configuration.configuration import Configuration, JobEntry
from backy.scheduler.jobs.due import Past, corrected
from backy.scheduler.monitoring.status import Holding, Seen, is_copy, strangers
from backy.system.clocks import present
from backy.system.safeyaml import parse_yaml
from backy.text.phrases import local_time, size

log = logging.getLogger(__name__)
Stamp = tuple[int, ...]
"""Times of the last change of a repository, of its quarantine and of its journal, in nanoseconds, and of each disk."""

LONG = 2**20
"""Bytes from which on it is remembered what a journal tells; of thousands of short ones that would take memory."""

_TICK = 10**7
"""Nanoseconds; the clock by which folders get their times ticks at least as often."""


def pending(job: JobEntry) -> bytes | None:
    """Make the folder of a job's repository if it is missing, and return the `config` to `configure` it with.

    That is None if the repository has it already. No plugin is loaded.

    Raises:
        RepositoryError: the base directory is missing, or the repository has another version.
        ConfigError: the present `config` is wrong.
    """
    base = job.directory.parent
    # The base directory is not created: if its disk is not mounted, backups would fill the one below.
    if not base.is_dir():
        raise RepositoryError(f"there is no folder {base}: is its disk mounted? A new base-dir is to be made by hand")
    # Without its parents, and not readable for others: it holds the data of guests.
    job.directory.mkdir(mode=0o750, exist_ok=True)
    present, wanted = _present(job.directory, job.config)
    # what storages share between jobs, if they do
    with suppress(OSError):
        (base / ".pool").mkdir(mode=0o750, exist_ok=True)
    return None if present and present.replaced_by(wanted) == present else dump_job(job.config)


def configure(directory: Path, content: bytes) -> Repository | Group:
    """Give a repository the `config` that `pending` has returned, and return the repository, which is made if missing.

    Format, id and creation time of an existing repository are kept. What has `disks` is a group of repositories.

    Raises:
        RepositoryError: the repository has another version.
        RepositoryBusyError: another command changes the repository.
        ConfigError, PluginError, StorageError: a plugin refuses its section.
    """
    plain = parse_yaml(content, "standard input")
    kind = GroupConfig if isinstance(plain, dict) and DISKS in plain else JobConfig
    present, wanted = _present(directory, typed(plain, kind, "config"))
    if isinstance(wanted, GroupConfig):
        if present is None:
            wanted = msgspec.structs.replace(wanted, id=shortuuid.uuid(), created=utc_now().replace(microsecond=0))
        group = Group(directory, wanted)
        if wanted != present:
            with group.alone():
                write_job(directory / CONFIG, wanted)
        return group
    if present is None:
        return Repository.initialize(directory, wanted)
    repository = Repository.open(directory)
    repository.configure(wanted)
    if wanted.storage.folder != present.storage.folder:
        text = "new revisions are kept by '%s' from now on; those in '%s' stay there until 'backy convert' moves them"
        log.warning(text, wanted.storage.type, present.storage.type)
    return repository


def _present(directory: Path, wanted: JobConfig) -> tuple[JobConfig | None, JobConfig]:
    """Return the `config` that is there, and the wanted one with what identifies that repository or group."""
    path = directory / CONFIG
    group = load_group(path)
    # the copy of a machine keeps the disks that it has
    if group and wanted.source is None and not isinstance(wanted, GroupConfig):
        wanted = with_disks(wanted, group.disks)
    if not path.exists():
        return None, wanted
    present = group or Repository.open(directory).config
    if isinstance(wanted, GroupConfig) != bool(group):
        what = "has disks of one machine" if group else "is the repository of one image"
        kind = "one 'source'" if group else "'disks'"
        raise RepositoryError(f"{directory} {what}: choose another name for a job with {kind}, or move it away")
    return present, msgspec.structs.replace(wanted, format=present.format, id=present.id, created=present.created)


class Known(NamedTuple):
    """A journal as it was, so that only what follows has to be understood."""

    size: int
    digest: bytes
    """SHA-256 of these bytes."""
    history: History
    """What they tell."""


class Audited(NamedTuple):
    """What is known of a repository by its journal."""

    head: Head | None = None
    """The last line that nothing contradicts; None if there is no journal."""
    tampering: tuple[str, ...] = ()
    """What contradicts the journal, or what was seen of it before."""
    complete: bool = True
    """Whether all could be looked at."""
    known: Known | None = None
    """The journal up to `head`, if it is long."""
    disks: Mapping[str, Audited] = MappingProxyType({})
    """The same of each disk of a group, by its name."""


NOTHING_KNOWN = Audited()


class Summary(Holding, kw_only=True):
    """What the scheduler needs to know of a repository."""

    past: Past
    newest: str | None = None
    """Id of the newest revision."""
    audited: Audited = NOTHING_KNOWN
    stamp: Stamp = (0, 0, 0)


def stamp(directory: Path) -> Stamp:
    """Return when a repository was changed, and each of the disks of a group; zeroes if there is none."""
    # Every change of a record creates, renames or removes a file, which changes the time of its directory.
    folders = [directory, *_disks(directory)]
    return tuple([_changed(one / name) for one in folders for name in ("", quarantine.FOLDER, JOURNAL)])


def _disks(directory: Path) -> list[Path]:
    """Return the repositories of the disks of a group; none of another repository."""
    # every repository has one, and a group has none: the `config` of thousands need not be read
    if (directory / JOURNAL).exists():
        return []
    with suppress(OSError, BackyError):
        if group := opened(directory):
            return [directory / name for name in group.names()]
    return []


def summarize(
    directory: Path, since: datetime, now: datetime, allowed: timedelta = timedelta(), earlier: Audited = NOTHING_KNOWN
) -> Summary:
    """Read all records of a repository, which may be missing still; `earlier` is what was known by its journal.

    A job without revisions exists since its repository was created, or since `since` if there is none. Revisions that
    began later than `now` by more than `allowed` are ahead of the clock.

    Raises:
        RepositoryError: it is a repository of backy 2, whose records are sound and only not ours.
    """
    before = stamp(directory)  # first, so that a change during this scan is noticed by the next one
    if time.time_ns() - max(before) < _TICK:
        before = (0, 0, 0)  # another change may leave the same times
    disks = _disks(directory)
    revisions, each, damaged = _surveyed(directory, disks)
    if damaged and not disks:
        with suppress(ConfigError):
            Repository.open(directory)
    audited = _audited_together(disks, earlier.disks) if disks else _audit(directory, earlier)
    past = Past.of(revisions, since, now + allowed, corrected(revisions, present(now), allowed))
    if past.newest is None:
        past = past._replace(since=min(_made(directory) or since, now + allowed))
    mark = read_mark(directory)
    return Summary(
        job=directory.name,
        past=past,
        **(of_newest(revisions[-1]) if revisions else {}),
        revisions=len(revisions),
        last_time=past.newest,
        manual_tags=tuple(sorted({tag for one in revisions for tag in one.tags if tag.startswith(MANUAL)})),
        quarantine_reports=sum(map(quarantine.count, disks or [directory])),
        distrusted=sum(revision.state.distrusted for revision in revisions),
        wrong=sum(revision.state.wrong is not None for revision in revisions),
        unreadable=len(damaged),
        ahead=past.ahead,
        waiting=mark.waiting if mark else 0,
        pinned=tuple(_pinned(each)),
        **_of_drill(disks[0] if disks else directory),
        head=audited.head,
        disks={name: Seen(one.head) for name, one in audited.disks.items()},
        tampering=audited.tampering,
        audited=audited,
        # one that could not be looked at whole is looked at again
        stamp=before if audited.complete else (0, 0, 0),
    )


class Orphan(msgspec.Struct, frozen=True):
    """A repository in the base directory that belongs to no job."""

    name: str
    copy: bool
    """Whether it has no source, so that no job ever backed it up."""
    occupied: int
    """Bytes that it takes."""
    revisions: int = 0
    last_time: datetime | None = None
    """Start of the newest revision."""
    problem: str | None = None
    """Why it can not be read, if it can not."""


def orphans(configuration: Configuration) -> Iterator[Orphan]:
    """Yield the repositories in the base directory that belong to no job; raises OSError."""
    jobs = {one.directory.name for one in configuration.jobs.values()}
    for directory in strangers(configuration.settings.base_dir, jobs):
        about = directory.name, is_copy(directory), occupied(directory).total
        try:
            found = summarize(directory, utc_now(), utc_now())
            yield Orphan(*about, found.revisions, found.last_time)
        except BackyError as error:
            yield Orphan(*about, problem=str(error))


def of_newest(newest: Revision) -> dict[str, Any]:
    """Return the members of a summary that are of the newest revision."""
    verification, statistics = newest.verification, newest.statistics
    return {
        "newest": newest.id,
        "last_tags": newest.tags,
        "last_duration": statistics.duration,
        "verification": str(verification) if verification else None,
        "compared_since": newest.compared_since,
        "partly_verified": bool(verification and verification.out_of_time),
        "consistency": newest.consistency,
        "unfrozen": newest.unfrozen,
        "remarks": verification.remarks if verification else (),
        "image": newest.size,
        "changed": statistics.bytes_written,
        "stored": statistics.bytes_stored,
    }


def _of_drill(directory: Path) -> dict[str, Any]:
    """Return the members of a summary that are of the last drill; each disk of a group has the result of all."""
    if not (drills := kept(directory)):
        return {}
    last = drills[-1]
    first = last.signs[0][1] if last.signs else None
    problem = None if last.ok else last.reason
    return {"drilled": last.time, "drill_problem": problem, "first_sign": first, "restore_seconds": last.restore}


def _surveyed(directory: Path, disks: list[Path]) -> tuple[list[Revision], list[Revision], Sequence[BackyError]]:
    """Return the revisions in use, of a group what stands for those of all disks, then each of them, and damage."""
    if not disks:
        sound, broken = Records(directory).survey()
        return sound, sound, broken
    whole, _, damaged = require(directory).survey()
    used = [one for one in whole if one.forgotten == {False}]
    return [one.revision for one in used], [each for one in used for each in one.members.values()], damaged


def _audited_together(disks: list[Path], earlier: Mapping[str, Audited]) -> Audited:
    """Hold each disk of a group against its journal, and that against what was seen of it before."""
    each = {disk.name: _audit(disk, earlier.get(disk.name, NOTHING_KNOWN)) for disk in disks}
    problems = tuple(f"{name}: {problem}" for name, one in each.items() for problem in one.tampering)
    # of a disk whose folder is gone what was seen is remembered
    return Audited(None, problems, all(one.complete for one in each.values()), disks={**earlier, **each})


def _pinned(revisions: list[Revision]) -> Iterator[str]:
    """Yield what each pin of a repository holds and why, a line each."""
    after = {one.shrunk.revision: (one.id, one.shrunk.to(one.size)) for one in revisions if one.shrunk}
    for held, tag in [(one, tag) for one in revisions for tag in one.tags if tag.startswith(PINNED)]:
        line = f"'{tag}' holds revision {held.id} of {local_time(held.timestamp)}, {size(held.size)}"
        if held.id in after:
            later, how = after[held.id]
            line += f": revision {later} {how}; 'backy accept -r {later}' says that this was meant"
        yield line


def _audit(directory: Path, earlier: Audited) -> Audited:
    """Hold a repository against its journal, and that against what was seen of it before."""
    if not (directory / CONFIG).exists():
        return earlier._replace(complete=True)
    with Journal(directory).reading(wait=False) as content:
        found = facts_of(directory)
    if content is None:  # somebody acts on it at this moment
        return earlier._replace(complete=False)
    known, witness = earlier.known, earlier.head
    # hashed as a whole: a line that somebody has changed since may be anywhere
    if known and sha256(memoryview(content)[: known.size]).digest() != known.digest:
        known = None
    lines = decode(content[known.size :] if known else content)
    history = replay(lines, known.history if known else None)
    if witness and history.adopted and history.adoption != witness.adoption:
        log.warning("%s: what was there was adopted, in line %d of the journal", directory, history.adopted)
        witness = None
    # what was seen last is the end of what is known
    told = findings(lines, found, [witness] if witness and not known else [], history)
    # a disk that does not answer is no tampering; what else is wrong is told all the same, of the same revision, too
    unread = tuple(f"{revision_id}." for revision_id, fact in found.items() if fact.unread)
    problems = tuple(problem for problem in told if not (problem.startswith(unread) and UNREAD in problem))
    # what was seen before any trouble is what has to be remembered
    if problems or unread:
        return Audited(witness, problems, not unread, earlier.known if witness else None)
    size = content.rfind(b"\n") + 1
    known = Known(size, sha256(memoryview(content)[:size]).digest(), history) if size >= LONG else None
    return Audited(history.head, known=known)


def _changed(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def _made(directory: Path) -> datetime | None:
    with suppress(OSError, BackyError):
        made = (opened(directory) or Repository.open(directory)).config.created
        return made or datetime.fromtimestamp((directory / CONFIG).stat().st_mtime, UTC)
    return None
