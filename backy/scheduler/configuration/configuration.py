"""Reads the scheduler's configuration, /etc/backy.conf, and reports all its problems at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec

from backy.config import Duration
from backy.plugins.events import REQUIRED
from backy.repository.config import (
    LONGEST_OUTAGE,
    MOST_KEPT,
    PluginSection,
    ScheduledTag,
    StorageSection,
    VerifierSections,
)
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
"""Names of the section `global`. Files of backy 2.2 have the second one."""
_JOB_NAME = re.compile(r"\w[\w.@+:-]{0,199}")


class Location(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The files of a scheduler: the keys of `global` that other commands need."""

    base_dir: Path = Path("/srv/backy")
    """Directory of the repositories, each in a folder with its job's name. The scheduler never creates it."""
    status_file: Path | None = None
    """The file that `backy check` reads; None means `status` in the base directory."""

    @property
    def status_path(self) -> Path:
        """Path of the status file."""
        return self.status_file or self.base_dir / "status"


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
    storage: StorageSection = StorageSection.named("chunked")
    """Storage of the images."""
    verifier: VerifierSections | None = None
    """Verifiers of new revisions; None leaves the choice to the source."""
    expire: bool = True
    """Whether revisions expire by the schedule."""
    longest_outage: Duration = LONGEST_OUTAGE
    """How long the server may be off between two backups: a clock that says more is not believed."""
    time_limit: Duration | None = None
    """Time after which a backup is ended; 0 or None means never."""
    standstill: Duration | None = Duration(hours=1)
    """Time without a byte read or stored after which a backup is ended; 0 or None means never."""


class _Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """A job as it is written below `jobs`."""

    source: PluginSection
    """The image to back up: `type` names the source, the other keys belong to it."""
    schedule: str
    """The name of a schedule."""
    # None where `global` has the same key, so that a job without the key can be told from one that repeats the default.
    keep: dict[str, Annotated[int, msgspec.Meta(ge=1, le=MOST_KEPT)]] = {}
    """Numbers of revisions to keep that differ from the schedule's, by tag."""
    storage: StorageSection | None = None
    verifier: VerifierSections | None = None
    expire: bool | None = None
    time_limit: Duration | None = None
    standstill: Duration | msgspec.UnsetType | None = msgspec.UNSET
    """None switches it off, which is not the same as a key that is not there."""


@dataclass(frozen=True)
class JobEntry:
    """A job with its schedule and its settings, those of `global` included."""

    name: str
    """Also the name of its folder in the base directory."""
    source: PluginSection
    schedule_name: str
    schedule: Schedule
    storage: StorageSection
    verifier: VerifierSections | None
    expire: bool
    time_limit: timedelta | None
    standstill: timedelta | None
    # Not compared: a job whose line has moved is not a changed job, and its running backup goes on.
    line: int = field(compare=False)
    """Its line in the configuration, from 1."""


@dataclass(frozen=True)
class HookEntry:
    """The section of an event plugin below `hooks`."""

    section: dict[str, Any]
    line: int = field(compare=False)
    """Its line in the configuration, from 1."""


@dataclass(frozen=True)
class Configuration:
    """All of /etc/backy.conf."""

    path: Path
    settings: Global
    schedules: Mapping[str, Schedule]
    jobs: Mapping[str, JobEntry]
    hooks: Mapping[str, HookEntry] = field(default_factory=dict)
    """The sections of event plugins by the plugins' names."""

    @property
    def hook_sections(self) -> dict[str, dict[str, Any]]:
        """The sections of event plugins as they are written."""
        return {name: entry.section for name, entry in self.hooks.items()}

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
    """Read the configuration, without the plugins that it names.

    Raises:
        ConfigurationError: the file can not be read, or anything in it is wrong; the error has all problems.
    """
    # Plugins are loaded with the jobs: a missing one harms the jobs that use it, and no others.
    configuration, problems = examine(path)
    if problems:
        raise ConfigurationError(path, problems)
    return configuration


def examine(path: Path) -> tuple[Configuration, list[Problem]]:
    """Read the configuration as far as it is sound, and return it with all its problems.

    Raises:
        ConfigurationError: the file can not be read, or is not YAML.
    """
    document = Document(path)
    return _Reader(document).read(), document.problems


def load_location(path: Path) -> Location:
    """Read the `Location` of the scheduler, and no more of the configuration than that needs.

    Raises:
        ConfigurationError: the file can not be read, is not YAML up to there, or one of the keys is wrong.
    """
    # `backy check` must answer at once and in any case: all of ten thousand jobs takes most of a second to read, and a
    # mistake in one job would keep it from its work.
    document = Document(path, only=_GLOBAL)
    location = _Reader(document).location()
    if location is None:
        raise ConfigurationError(path, document.problems)
    return location


class _Reader:
    """Converts a document to a configuration and reports the problems that it finds."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._checker = Checker(document)

    def location(self) -> Location | None:
        """Return the location of the scheduler. Report problems and return None if there are any."""
        # A file that is no mapping means the defaults here: those who read all of it report the problem.
        sections = self._document.content if isinstance(self._document.content, dict) else {}
        name = next((name for name in _GLOBAL if sections.get(name)), _GLOBAL[0])
        return self._checker.section(sections.get(name) or {}, Location, (name,))

    def read(self) -> Configuration:
        """Return the configuration. It must not be used if problems were reported."""
        sections = self._checker.mapping(self._document.content, ())
        self._checker.keys(sections, ["global", "hooks", "schedules", "jobs"], (), also=["config"])
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
        return Configuration(self._document.path, settings, schedules, jobs, self._hooks(sections))

    def _hooks(self, sections: Mapping[str, Any]) -> dict[str, HookEntry]:
        found = {}
        for name, value in self._checker.mapping(sections.get("hooks") or {}, ("hooks",)).items():
            # `slack:` without anything below it is None in YAML: a plugin without options that has to be there.
            section = dict(self._checker.mapping({} if value is None else value, ("hooks", name)))
            if not isinstance(section.get(REQUIRED, True), bool):
                self._checker.report(("hooks", name, REQUIRED), "expected true or false")
            found[name] = HookEntry(section, self._document.line(("hooks", name)))
        return found

    def _global(self, sections: Mapping[str, Any]) -> Global:
        name = "config" if "config" in sections else "global"
        if {"global", "config"} <= sections.keys():
            self._checker.report((name,), "is another name of 'global', which is there too; put all into one of them")
        # `global:` without anything below it is None in YAML.
        found = {} if sections.get(name) is None else sections[name]
        self._plugins(found, (name,), ["storage", "verifier"])
        return self._checker.section(found, Global, (name,)) or Global()

    def _required(self, sections: Mapping[str, Any], name: str, what: str) -> Mapping[str, Any]:
        """Return a section that has to be there; `what` tells users the content of a missing one."""
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
        # A misspelt tag would keep revisions longer or shorter than was meant, without a word.
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
            standstill=(settings.standstill if entry.standstill is msgspec.UNSET else entry.standstill) or None,
            line=self._document.line(key),
        )

    def _name(self, name: str, settings: Global) -> None:
        """Report a name that no folder in the base directory can have."""
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
        """Return the schedule that a job names. Report an unknown one and return None."""
        # Taken from the document: a job with other problems has no entry, and users want to see this one, too.
        name = job.get("schedule") if isinstance(job, dict) else None
        if not isinstance(name, str):
            return None  # reported with the other keys of the job
        if name not in schedules:
            self._checker.report((*key, "schedule"), f"no schedule '{name}'; {alternatives(name, schedules)}")
        return schedules.get(name)

    def _plugins(self, content: object, key: Key, names: list[str]) -> None:
        """Report the key `backend` in sections of plugins."""
        # Files of backy 2 have it. The plugins would refuse it, too, but `load` does not ask them.
        for name in names:
            value = content.get(name) if isinstance(content, dict) else None
            if isinstance(value, dict) and "backend" in value:
                self._checker.report(
                    (*key, name, "backend"), "write 'storage: chunked' or 'storage: cow' beside 'source', not in it"
                )
