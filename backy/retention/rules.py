"""What follows from a schedule: when tags have runs, which tags expire, and how many at a time.

The tags of a schedule have runs one interval apart, shifted by the job's spread. All times are UTC.
`backy.scheduler.jobs.due` decides by them when a job is due. Which tags expire follows from the schedule, the revisions
and the time:

* A tag of the schedule expires when both are true: `keep` newer revisions have it, and it is older than `keep` of its
  intervals. So neither a pause nor a burst of extra backups costs a revision that is wanted.
* A tag that is not in the schedule expires when it is older than the longest window (`keep` intervals) of the schedule.
  So a renamed tag removes nothing at once.
* A tag that begins with `manual:` never expires.
* The age of a tag that begins with `pinned:` counts from when it was given.
* A revision without tags is removed.
* A revision is as old as the clock says, or as its trusted time says if that is less.
* A revision that is distrusted or wrong does not count among the newer ones.
* The newest revision that is neither keeps all of its tags, and so do those that are newer.

Apply these rules after a successful backup only: while backups fail, nothing expires.

A brake lets no more expire at a time than was made since, and one more, so that no wrong clock empties a history at
once. The file `.expired` in the repository has the number of the newest revision at the last `expire`: what was made
since has a greater one. A lost file costs time only: then nothing counts as made since, and one of each tag goes at a
time.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from backy.durable import read_file, write_file
from backy.repository.config import JobConfig, ScheduledTag
from backy.repository.revision import MANUAL, PINNED, Revision, trusted_now
from backy.system.clocks import Instant

EPOCH = datetime(1, 1, 1, tzinfo=UTC)
"""Intervals are counted from here, so a week begins at no day in particular."""
Schedule = Mapping[str, ScheduledTag]
"""The tags of a job, at least one."""
History = Sequence[Revision]
"""Revisions, the oldest first."""
MARK = ".expired"
"""Name of the file that tells of the last `expire`."""


def spread(job: str, schedule: Schedule) -> timedelta:
    """Return the shift of a job's runs in whole seconds, at most its longest interval; as in backy 2."""
    # the name alone decides: so the load is spread over the day without configuration, and a restart changes nothing
    seed = int(hashlib.md5(job.encode(), usedforsecurity=False).hexdigest(), 16)
    longest = int(max(tag.interval for tag in schedule.values()).total_seconds())
    return timedelta(seconds=random.Random(seed).randint(0, longest))  # noqa: S311  # no secret: it has to be the same in each process


def next_ideal(interval: timedelta, shift: timedelta, now: datetime) -> datetime:
    """Return the start of a tag's next run, strictly after `now`; `shift` is the job's spread."""
    return now + interval - (now - EPOCH - shift) % interval


class Expiry(NamedTuple):
    """A revision from which tags expire."""

    revision: Revision
    remaining: tuple[str, ...]
    """The tags that it keeps. A revision without any is removed."""

    @property
    def lost(self) -> tuple[str, ...]:
        """The tags that expire."""
        return tuple(tag for tag in self.revision.tags if tag not in self.remaining)


def expiries(schedule: Schedule, history: History, now: datetime, trusted: datetime | None = None) -> list[Expiry]:
    """Return the revisions of which tags expire, the newest first.

    Args:
        schedule: The tags of the job.
        history: The revisions, the oldest first.
        now: The time.
        trusted: The trusted time; None if the clock is believed.
    """
    rules = Rules(schedule, now, trusted)
    found = []
    for revision, newest in rules.standings(history):
        # a revision younger than every window loses no tag, so there is no need to look at each of them
        # of one whose state can not be read now, nobody knows the tags
        if newest or revision.unread or (revision.tags and rules.age(revision) <= rules.shortest):
            continue
        remaining = tuple([tag for tag in revision.tags if rules.held(tag, revision)])
        if len(remaining) < len(revision.tags) or not remaining:
            found.append(Expiry(revision, remaining))
    return found


class Rules:
    """Applies a schedule to one revision after the other, from the newest to the oldest."""

    def __init__(self, schedule: Schedule, now: datetime, trusted: datetime | None) -> None:
        self.schedule = schedule
        self.now = now
        self._trusted = trusted
        self.windows = {name: tag.interval * tag.keep for name, tag in schedule.items()}
        """The age up to which no tag of the schedule expires."""
        self.longest = max(self.windows.values())
        """The age up to which no other tag expires."""
        self.shortest = min(self.windows.values())
        """The age up to which no tag expires."""
        self.wanted = {name: tag.keep for name, tag in schedule.items()}
        """How many more revisions of each tag are wanted, apart from those newer than the present one."""

    def standings(self, history: History) -> Iterator[tuple[Revision, bool]]:
        """Yield the revisions from the newest on, and whether all newer ones are in doubt."""
        newest = True
        for revision in reversed(history):
            yield revision, newest
            # only now: a revision does not count among those that are newer than itself
            if not revision.doubtful:
                newest = False
                for tag in revision.tags:
                    if tag in self.wanted:
                        self.wanted[tag] -= 1

    def age(self, revision: Revision) -> timedelta:
        """Return how old a revision is for certain."""
        by_clock = self.now - revision.timestamp
        return by_clock if self._trusted is None else min(by_clock, self._trusted - revision.trusted_time)

    def held(self, tag: str, revision: Revision) -> bool:
        """Tell whether a tag of the present revision is kept."""
        # enough newer revisions or a great age alone is not enough: only both together let it expire
        if tag in self.wanted:
            return self.wanted[tag] > 0 or self.age(revision) <= self.windows[tag]
        return tag.startswith(MANUAL) or self.age_of(tag, revision) <= self.longest

    def age_of(self, tag: str, revision: Revision) -> timedelta:
        """Return how old a tag is that the schedule does not have."""
        if tag.startswith(PINNED) and revision.state.pinned:
            return min(self.now, self._trusted or self.now) - revision.state.pinned
        return self.age(revision)


class Mark(msgspec.Struct, frozen=True):
    """What is known of the last `expire`."""

    seq: int
    """The number of the newest revision."""
    waiting: int = 0
    """Number of revisions that waited: the clock alone would have let them expire."""
    told: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """When the log last told of them."""


Allowed = Callable[[Expiry], bool]
"""Whether a plugin lets a revision lose its tags."""


class Plan(NamedTuple):
    """What expires, and what waits."""

    going: list[Expiry]
    """The revisions that lose tags, the newest first."""
    waiting: int
    """Number of revisions that would lose more if the clock were believed."""


def read_mark(directory: Path) -> Mark | None:
    """Return what is known of the last `expire` in a repository; None if it is lost or there was none."""
    try:
        return msgspec.json.decode(read_file(directory / MARK), type=Mark)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_mark(directory: Path, mark: Mark) -> None:
    """Write down, durably, what is known of the last `expire`."""
    write_file(directory / MARK, msgspec.json.encode(mark) + b"\n", 0o640)


def plan(config: JobConfig, history: History, mark: Mark | None, now: Instant, asked: Allowed = lambda _: True) -> Plan:
    """Return what expires at `now`; nothing if there is no schedule or it is off.

    `history` has the oldest first. `asked` is called with each expiry; what is held back takes nobody's turn.
    """
    if not config.schedule or not config.expire or not history:
        return Plan([], 0)
    trusted = trusted_now(history, now, config.allowance)
    since = history[-1].seq if mark is None else mark.seq
    # an imported image was not made since, however many there are
    made = Counter(tag for one in history if one.seq > since and one.boot for tag in one.birth_tags)
    going = _braked(expiries(config.schedule, history, now.wall, trusted), made, asked)
    left = _losses(expiries(config.schedule, history, now.wall)) - _losses(going)
    return Plan(going, len({revision_id for revision_id, _ in left}))


def _braked(found: Sequence[Expiry], made: Counter[str], allowed: Allowed) -> list[Expiry]:
    """Return what may go at once: of each tag as many as were made, and one more, the oldest first."""
    spent: Counter[str] = Counter()
    going = []
    for expiry in reversed(found):
        # one more than were made: so a history that is longer than wanted gets shorter with each backup
        lost = [tag for tag in expiry.lost if spent[tag] <= made[tag]]
        braked = Expiry(expiry.revision, tuple([tag for tag in expiry.revision.tags if tag not in lost]))
        # a revision without tags is nobody's history: a person took the last one away
        if (lost or not expiry.revision.tags) and allowed(braked):
            spent.update(lost)
            going.append(braked)
    return going[::-1]


def _losses(found: Sequence[Expiry]) -> set[tuple[str, str]]:
    return {(expiry.revision.id, tag) for expiry in found for tag in expiry.lost}
