"""The scheduler's configuration, /etc/backy.conf: typed, checked as a whole, and every problem told at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec

from backy.config import Duration
from backy.repository.config import MOST_KEPT, PluginSection, ScheduledTag, ShortSection
from backy.retention.schedule import MANUAL, Schedule
from backy.scheduler.configuration.document import ConfigurationError, Document, Problem
from backy.scheduler.configuration.validation import Checker, Key
from backy.text.phrases import alternatives

__all__ = [
    "Configuration",
    "ConfigurationError",
    "Global",
    "JobEntry",
    "Location",
    "Problem",
    "examine",
    "load",
    "load_location",
]

_GLOBAL = ("global", "config")
"""The names of the section `global`; backy 2.2 has the latter."""
_JOB_NAME = re.compile(r"\w[\w.@+:-]{0,199}")


class Location(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Where a scheduler is to be found: the keys of `global` that the commands beside it need."""

    base_dir: Path = Path("/srv/backy")
    """Where the repositories are, each in a folder with its job's name; the scheduler never makes it."""
    status_file: Path | None = None
    """What `backy check` reads; None for `status` in the base directory."""

    @property
    def status_path(self) -> Path:
        """Where the scheduler's status is written."""
        return self.status_file or self.base_dir / "status"


class Global(Location, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """The section `global`: the scheduler itself, and what jobs have unless they say otherwise."""

    worker_limit: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How many backups run at a time, for fast and for slow jobs each."""
    status_interval: Duration = Duration(seconds=30)
    """How often that is written."""
    telnet_addrs: str | tuple[str, ...] = "::1, 127.0.0.1"
    """Addresses of the console, as a list or with commas; an empty text or list switches it off."""
    telnet_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 6023
    """Port of the console."""
    telnet_read_only: bool = False
    """Whether the console has no commands that change anything."""
    metrics_file: Path | None = None
    """Where the status is written for Prometheus, if anywhere: `*.prom` for node_exporter's textfile collector."""
    backup_completed_callback: Path | None = None
    """A program that is called after each backup."""
    storage: ShortSection = ShortSection.named("chunked")
    """How images are kept."""
    verifier: ShortSection | None = None
    """How fresh revisions are checked; None leaves the choice to the source."""
    expire: bool = True
    """Whether revisions expire by the schedule."""
    time_limit: Duration | None = None
    """How long a backup may take before it is ended; 0 or None for ever."""


class _Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """A job as it is written below `jobs`."""

    source: PluginSection
    """What is backed up: `type` names the source, the other keys are its own."""
    schedule: str
    """The name of a schedule."""
    keep: dict[str, Annotated[int, msgspec.Meta(ge=1, le=MOST_KEPT)]] = {}
    """Other numbers of revisions to keep than the schedule's, by tag."""
    storage: ShortSection | None = None
    verifier: ShortSection | None = None
    expire: bool | None = None
    time_limit: Duration | None = None


@dataclass(frozen=True)
class JobEntry:
    """A job, with what it has from its schedule and from `global`."""

    name: str
    """Also that of its folder in the base directory."""
    source: PluginSection
    schedule_name: str
    schedule: Schedule
    storage: ShortSection
    verifier: ShortSection | None
    expire: bool
    time_limit: timedelta | None
    line: int = field(compare=False)
    """Where it is written."""


@dataclass(frozen=True)
class Configuration:
    """All of /etc/backy.conf."""

    path: Path
    settings: Global
    schedules: Mapping[str, Schedule]
    jobs: Mapping[str, JobEntry]

    @property
    def status_file(self) -> Path:
        """Where the scheduler's status is written."""
        return self.settings.status_path

    @property
    def telnet_addresses(self) -> tuple[str, ...]:
        """The addresses of the console; none if it is switched off."""
        found = self.settings.telnet_addrs
        texts = found.split(",") if isinstance(found, str) else found
        return tuple(text.strip() for text in texts if text.strip())

    def repository(self, job: JobEntry) -> Path:
        """Return the directory of a job's repository."""
        return self.settings.base_dir / job.name


def load(path: Path) -> Configuration:
    """Read the configuration. Plugins are not looked at: one that is missing harms the jobs that use it, and no others.

    Raises:
        ConfigurationError: the file can not be read, or anything in it is wrong; it has all that is.
    """
    configuration, problems = examine(path)
    if problems:
        raise ConfigurationError(path, problems)
    return configuration


def examine(path: Path) -> tuple[Configuration, list[Problem]]:
    """Read the configuration as far as it is sound, and all that is wrong with it.

    Raises:
        ConfigurationError: the file can not be read, or is not YAML.
    """
    document = Document(path)
    return _Reader(document).read(), document.problems


def load_location(path: Path) -> Location:
    """Read where the scheduler of a configuration is to be found, and no more of the file than that needs.

    To read all of a configuration of ten thousand jobs takes most of a second, and one that has a mistake can not be
    used. Neither keeps `backy check` from its work.

    Raises:
        ConfigurationError: the file can not be read, is not YAML up to there, or one of the keys is wrong.
    """
    document = Document(path, only=_GLOBAL)
    location = _Reader(document).location()
    if location is None:
        raise ConfigurationError(path, document.problems)
    return location


class _Reader:
    """Turns a document into a configuration and reports what is wrong on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._checker = Checker(document)

    def location(self) -> Location | None:
        """Return where the scheduler is to be found; None if that is wrong, which is reported."""
        sections = self._document.content if isinstance(self._document.content, dict) else {}
        name = next((name for name in _GLOBAL if sections.get(name)), _GLOBAL[0])
        return self._checker.section(sections.get(name) or {}, Location, (name,))

    def read(self) -> Configuration:
        """Return the configuration; it is good for nothing if problems were reported."""
        sections = self._checker.mapping(self._document.content, ())
        self._checker.keys(sections, ["global", "schedules", "jobs"], (), also=["config"])
        settings = self._global(sections)
        schedules = {
            name: self._schedule(value, ("schedules", name))
            for name, value in self._required(sections, "schedules", "at least one schedule").items()
        }
        jobs = {}
        for name, value in self._required(sections, "jobs", "the jobs by their names, or {}").items():
            job = self._job(name, value, settings, schedules)
            if job is not None:
                jobs[name] = job
        return Configuration(self._document.path, settings, schedules, jobs)

    def _global(self, sections: Mapping[str, Any]) -> Global:
        name = "config" if "config" in sections else "global"
        if {"global", "config"} <= sections.keys():
            self._checker.report((name,), "is another name of 'global', which is there too; put all into one of them")
        found = {} if sections.get(name) is None else sections[name]
        self._plugins(found, (name,), ["storage", "verifier"])
        return self._checker.section(found, Global, (name,)) or Global()

    def _required(self, sections: Mapping[str, Any], name: str, what: str) -> Mapping[str, Any]:
        if name not in sections:
            self._checker.report((), f"the section '{name}' is missing; it has {what}")
            return {}
        return self._checker.mapping(sections[name], (name,))

    def _schedule(self, value: object, key: Key) -> Schedule:
        found = {}
        for name, content in self._checker.mapping(value, key).items():
            if name.startswith(MANUAL):
                self._checker.report((*key, name), f"tags that begin with '{MANUAL}' are given by hand, by no schedule")
            elif not name or name != name.strip() or "," in name or not name.isprintable():
                self._checker.report((*key, name), "a tag has no comma, no control character, and no blank at its ends")
            tag = self._checker.section(content, ScheduledTag, (*key, name))
            if tag is not None:
                found[name] = tag
        if value == {}:
            self._checker.report(key, "has no tag; write one as in 'daily: {interval: 1d, keep: 7}'")
        return found

    def _job(self, name: str, value: object, settings: Global, schedules: Mapping[str, Schedule]) -> JobEntry | None:
        key = ("jobs", name)
        self._name(name, settings)
        self._plugins(value, key, ["source", "storage", "verifier"])
        entry = self._checker.section(value, _Entry, key)
        schedule = self._chosen(value, schedules, key)
        if entry is None or schedule is None:
            return None
        self._checker.keys(entry.keep, list(schedule), (*key, "keep"))
        limit = settings.time_limit if entry.time_limit is None else entry.time_limit
        return JobEntry(
            name=name,
            source=entry.source,
            schedule_name=entry.schedule,
            schedule={
                tag: msgspec.structs.replace(one, keep=entry.keep.get(tag, one.keep)) for tag, one in schedule.items()
            },
            storage=entry.storage or settings.storage,
            verifier=entry.verifier or settings.verifier,
            expire=settings.expire if entry.expire is None else entry.expire,
            time_limit=limit or None,
            line=self._document.line(key),
        )

    def _name(self, name: str, settings: Global) -> None:
        """See that a job can have a folder of its name."""
        if not _JOB_NAME.fullmatch(name):
            self._checker.report(
                ("jobs", name),
                "a job's name is that of its folder: letters, digits and _ . @ + : -, the first a letter, a digit or "
                "_, 200 at most",
            )
        if settings.base_dir / name == settings.status_path:
            self._checker.report(
                ("jobs", name), "is the name of the status file; call the job otherwise, or set global.status-file"
            )

    def _chosen(self, job: object, schedules: Mapping[str, Schedule], key: Key) -> Schedule | None:
        """Return the schedule that a job names."""
        name = job.get("schedule") if isinstance(job, dict) else None
        if not isinstance(name, str):
            return None
        if name not in schedules:
            self._checker.report((*key, "schedule"), f"no schedule '{name}'; {alternatives(name, schedules)}")
        return schedules.get(name)

    def _plugins(self, content: object, key: Key, names: list[str]) -> None:
        """See that the sections of plugins have nothing of backy 2."""
        for name in names:
            value = content.get(name) if isinstance(content, dict) else None
            if isinstance(value, dict) and "backend" in value:
                self._checker.report(
                    (*key, name, "backend"), "write 'storage: chunked' or 'storage: cow' beside 'source', not in it"
                )
