"""Writes the overview: a page of all jobs, and one of each, from the status file and what the repositories have.

Nothing is asked of the scheduler but a sign of life, and no source is touched. Pages that would be the same are left as
they are: the file `.known` has what they were made of.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from backy.answers.reasons import Hold, reasons
from backy.durable import read_file, write_file
from backy.errors import BackyError
from backy.groups.group import Group, opened
from backy.repository.config import CONFIG
from backy.repository.drills import kept
from backy.repository.journal import JOURNAL, decode
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision, utc_now
from backy.retention.rules import Schedule, next_ideal, spread
from backy.scheduler.configuration.location import load_location
from backy.scheduler.monitoring.check import Recorded, State, judge, recorded, told
from backy.scheduler.monitoring.status import READABLE, JobStatus, space
from backy.terminal.plain import printable
from backy.text.phrases import counted, length_of_time, local_time, size

DAYS = 30
"""How many days the heat map has, today included."""
MONTHS = 12
"""For how many months it is told what will be kept."""
MONTH = timedelta(days=365.25) / 12
LARGEST = 2**28
"""Bytes that no journal of these days, and no `.known`, exceeds."""
KNOWN = ".known"
STATES = {"late": "late", "failing": "fails", "unknown": "not known", "look": "look at it", "fine": "in time"}
"""The states of a row in words, the most urgent one first."""
_MADE = re.compile(rb'"act":"(?:backup|copy|fetch)","step":"done"')
"""Is in the lines of a journal that tell of a new revision; to understand all of them would take long."""


class Row(msgspec.Struct, frozen=True):
    """What the page of all jobs has of one."""

    made_of: str
    """A hash of what the job's own page was made of."""
    state: str
    """One of `STATES`."""
    last: datetime | None
    image: int | None
    """Bytes of the newest image."""
    made: int
    """Number of the days that have a backup."""
    heat: tuple[tuple[str, str], ...]
    """The days that are `good`, and those of which all revisions are in doubt (`bad`), as paths of SVG."""


class Written(msgspec.Struct):
    """What was done."""

    jobs: int = 0
    pages: int = 0
    """Number of pages that are new or others than before."""
    unread: list[str] = []
    """Why repositories could not be looked at."""


@dataclass
class Overview:
    """The pages in `folder`, of what is known of a scheduler."""

    folder: Path
    base_dir: Path
    found: Recorded
    known: dict[str, Row]
    """The rows of the overview before, by the job."""
    done: Written = field(default_factory=Written)

    def __post_init__(self) -> None:
        loader, strict = jinja2.FileSystemLoader(Path(__file__).parent / "templates"), jinja2.StrictUndefined
        # what comes from repositories and sources may have any character
        self._templates = jinja2.Environment(
            trim_blocks=True, lstrip_blocks=True, undefined=strict, finalize=_shown, autoescape=True, loader=loader
        )
        style = self._templates.get_template("style.css").render().encode()
        self._templates.globals |= {"style_hash": _hash(style), "found": self.found, "states": STATES, "days": DAYS}
        self._templates.globals |= {"size": size, "disk": space, "duration": length_of_time, "bars": bars}
        self._templates.filters["time"] = local_time

    def write(self) -> Written:
        """Write all pages that are new or others than before, and remove those of jobs that are gone."""
        parts: dict[str, list[JobStatus]] = {}
        for job in self.found.status.jobs:
            parts.setdefault(job.job.partition("/")[0], []).append(job)
        rows = {name: self._row(name, jobs) for name, jobs in parts.items()}
        verdict = judge(self.found)
        if self.done.unread:
            # the scheduler may not have seen it yet
            unread = f"{counted(len(self.done.unread), 'repository', 'repositories')} can not be read"
            verdict = verdict._replace(state=max(verdict.state, State.WARNING), summary=f"{verdict.summary}; {unread}")
        bad = [*verdict.findings, *self.done.unread]
        order = sorted(rows, key=lambda name: ([*STATES].index(rows[name].state), name))
        self._page("index.html", "index.html", verdict=verdict, rows=rows, order=order, bad=bad)
        # only what is there, and was written here: the folder may have other pages, and `.known` any name
        for path in (self.folder / "jobs").glob("*.html"):
            if path.stem in self.known.keys() - rows:
                path.unlink()
        write_file(self.folder / KNOWN, msgspec.json.encode(rows), READABLE, durable=False)
        self.done.jobs = len(rows)
        return self.done

    def _row(self, name: str, jobs: Sequence[JobStatus]) -> Row:
        """Return the row of a job with what is done beside its backups, and write its page."""
        now, directory = self.found.now, self.base_dir / name
        lines, today = [line for job in jobs for line in told(job, now)], now.astimezone().date()
        disks = [directory / disk for disk in jobs[0].disks] or [directory]
        made_of = _hash(repr((jobs, lines, today, not self.found.doubt, [*map(_stamp, disks)])).encode())
        if (row := self.known.get(name)) and row.made_of == made_of and row.state != "unknown":
            return row
        content: dict[str, Any] = {"lines": lines, "revisions": [], "drills": [], "kept": {}, "future": []}
        heat: dict[str, set[date]] = {}
        try:
            found = opened(directory) or Repository.open(directory)
            history = found.history() if isinstance(found, Group) else found.records.survey()[0]
            heat = days_of(disks, history, today)
            content |= {
                "drills": kept(disks[0]),
                "revisions": history[::-1],
                "kept": reasons(found.config, name, history, now),
            }
            if found.config.schedule and found.config.expire:
                content["future"] = outlook(found.config.schedule, name, content["kept"].values(), now)
            state = "unknown" if self.found.doubt else _state(jobs, lines)
        except (BackyError, OSError) as error:
            lines.append(f"{name}: {error}")
            self.done.unread.append(lines[-1])
            state = "unknown"
        row = Row(made_of, state, jobs[0].last_time, jobs[0].image, sum(map(len, heat.values())), _paths(heat, today))
        self._page("job.html", f"jobs/{name}.html", name=name, row=row, jobs=jobs, directory=directory, **content)
        return row

    def _page(self, template: str, path: str, **content: Any) -> None:  # noqa: ANN401  # what the template uses
        page = self._templates.get_template(template).render(**content).encode()
        with suppress(OSError):
            if read_file(self.folder / path, LARGEST) == page:
                return
        write_file(self.folder / path, page, READABLE, durable=False)
        self.done.pages += 1


def write_overview(configuration: Path, folder: Path, clock: Clock = utc_now) -> Written:
    """Write the overview of the scheduler of `configuration` into `folder`, which is made if it is missing.

    Raises:
        BackyError: there is no status file, or it is not one of this version.
        OSError: the status can not be read, or the folder can not be written to.
    """
    base_dir, found = load_location(configuration).base_dir, recorded(configuration, clock)
    for each in (folder, folder / "jobs"):
        each.mkdir(mode=0o755, exist_ok=True)
    known: dict[str, Row] = {}
    # lost, or of another version: all is made anew
    with suppress(OSError, msgspec.DecodeError):
        known = msgspec.json.decode(read_file(folder / KNOWN, LARGEST), type=dict[str, Row])
    return Overview(folder, base_dir, found, known).write()


def _state(jobs: Sequence[JobStatus], lines: Sequence[str]) -> str:
    if any(job.sla_overdue for job in jobs):
        return "late"
    return "failing" if any(job.failing_since for job in jobs) else "look" if lines else "fine"


def _shown(value: object) -> object:
    return printable(value) if type(value) is str and not value.isprintable() else value


def _hash(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def _stamp(directory: Path) -> list[tuple[int, int]]:
    """Return what tells whether a repository was changed; each change of a revision is in its journal."""
    found = [path.stat() for path in (directory / JOURNAL, directory / CONFIG) if path.exists()]
    return [(one.st_mtime_ns, one.st_size) for one in found]


def days_of(directories: Collection[Path], history: Sequence[Revision], today: date) -> dict[str, set[date]]:
    """Return which of the last days have a backup, by the journals of all disks; those in doubt are `bad`."""
    first = today - timedelta(days=DAYS - 1)
    times = {one.id: one.timestamp for one in history}
    made = set.intersection(*({*_made(directory / JOURNAL, first, times)} for directory in directories))
    # what is gone since was good as far as anybody knows
    sound = {one.timestamp.astimezone().date() for one in history if not one.doubtful}
    bad = ({one.timestamp.astimezone().date() for one in history} - sound) & made
    return {"good": made - bad, "bad": bad}


def _made(journal: Path, first: date, times: Mapping[str, datetime]) -> Iterator[date]:
    """Yield the days from `first` on of which a revision came, by a journal, and by the `times` of those there are."""
    # from its end: it may have the lines of years
    for raw in filter(_MADE.search, reversed(read_file(journal, LARGEST).split(b"\n")[:-1])):
        for line, _ in decode(raw + b"\n"):
            if line and line.time.astimezone().date() < first:
                return
            # what was copied is of the day of its backup; the end of a copy names no revision
            if line and line.revision and (day := times.get(line.revision, line.time).astimezone().date()) >= first:
                yield day


def _paths(heat: dict[str, set[date]], today: date) -> tuple[tuple[str, str], ...]:
    """Return the days of each kind as a path of SVG: a line of length 1 for each day, joined where they touch."""
    first = today - timedelta(days=DAYS - 1)
    found = []
    for kind, marked in heat.items():
        # days in a row have the same difference from their place in the order
        numbers = enumerate(sorted((day - first).days for day in marked))
        runs = [[number for _, number in run] for _, run in groupby(numbers, lambda pair: pair[1] - pair[0])]
        if runs:
            found.append((kind, "".join(f"M{run[0]} 0h{len(run)}" for run in runs)))
    return tuple(found)


def bars(values: Sequence[float]) -> str:
    """Return a bar for each value as a path of SVG, 1 wide and at most 100 high."""
    most = max(values) or 1
    return "".join(f"M{place} 100v-{100 * value / most:.0f}h.8V100z" for place, value in enumerate(values))


def outlook(
    schedule: Schedule, job: str, kept: Collection[Sequence[Hold]], now: datetime
) -> list[tuple[datetime, int, int]]:
    """Return what retention keeps in the next months if all backups are made on time.

    For each month: its end, how many of the revisions that there are now, and how many of those that come until then.
    """
    shift, ends = spread(job, schedule), [now + number * MONTH for number in range(1, MONTHS + 1)]
    still = [sum(any(not one.until or one.until > end for one in holds) for holds in kept) for end in ends]
    return [(end, left, len({*_coming(schedule, shift, now, end)})) for end, left in zip(ends, still, strict=True)]


def _coming(schedule: Schedule, shift: timedelta, now: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the times of the runs until `end` whose revisions are kept then; one with several tags more than once."""
    for tag in schedule.values():
        window = tag.interval * tag.keep
        run = next_ideal(tag.interval, shift, now if end - now < window else end - window)
        while run <= end:
            yield run
            run += tag.interval
