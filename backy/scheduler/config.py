"""The scheduler's configuration, /etc/backy.conf: typed, checked as a whole, and every problem told at once."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from backy.config import MOST_KEPT, ScheduledTag, convert, schedule_of
from backy.duration import Duration
from backy.schedule import MANUAL, Schedule
from backy.scheduler.document import ConfigurationError, Document, Problem

__all__ = ["Configuration", "ConfigurationError", "Global", "JobEntry", "Problem", "load"]

Section = TypeVar("Section", bound=msgspec.Struct)
_JOB_NAME = re.compile(r"\w[\w.@+:-]{0,199}")
_RETIRED = {
    "api": "the HTTP interface of an unreleased backy 2.6 is not there",
    "peers": "backup servers of an unreleased backy 2.6 do not know each other here",
    "backend": "write 'storage: chunked' or 'storage: cow' beside 'source', not in it",
}
"""Keys of other versions of backy, and what to do about them."""


class Global(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """The section `global`: the scheduler itself, and what jobs have unless they say otherwise."""

    base_dir: Path = Path("/srv/backy")
    """Where the repositories are, each in a folder with its job's name; the scheduler never makes it."""
    worker_limit: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How many backups run at a time, for fast and for slow jobs each."""
    status_file: Path | None = None
    """What `backy check` reads; None for `status` in the base directory, see `Configuration.status_file`."""
    status_interval: Duration = Duration(seconds=30)
    """How often that is written."""
    telnet_addrs: str | tuple[str, ...] = "::1, 127.0.0.1"
    """Addresses of the console, as a list or with commas; an empty text or list switches it off."""
    telnet_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 6023
    """Port of the console."""
    backup_completed_callback: Path | None = None
    """A program that is called after each backup."""
    storage: dict[str, Any] | str = "chunked"
    """How images are kept."""
    verifier: dict[str, Any] | str | None = None
    """How fresh revisions are checked; None leaves the choice to the source."""
    expire: bool = True
    """Whether revisions expire by the schedule."""
    time_limit: Duration | None = None
    """How long a backup may take before it is ended; 0 or None for ever."""


class _Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """A job as it is written below `jobs`."""

    source: dict[str, Any]
    """What is backed up: `type` names the source, the other keys are its own."""
    schedule: str
    """The name of a schedule."""
    keep: dict[str, Annotated[int, msgspec.Meta(ge=1, le=MOST_KEPT)]] = {}
    """Other numbers of revisions to keep than the schedule's, by tag."""
    storage: dict[str, Any] | str | None = None
    verifier: dict[str, Any] | str | None = None
    expire: bool | None = None
    time_limit: Duration | None = None


@dataclass(frozen=True)
class JobEntry:
    """A job, with what it has from its schedule and from `global`."""

    name: str
    """Also that of its folder in the base directory."""
    source: Mapping[str, Any]
    schedule_name: str
    schedule: Schedule
    storage: Mapping[str, Any]
    verifier: Mapping[str, Any] | None
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
        return self.settings.status_file or self.settings.base_dir / "status"

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
    document = Document(path)
    configuration = _Reader(document).read()
    if document.problems:
        raise ConfigurationError(path, document.problems)
    return configuration


def section(value: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Return a plugin's section, of which the name alone may be written."""
    return {"type": value} if isinstance(value, str) else value


class _Reader:
    """Turns a document into a configuration and reports what is wrong on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._report = document.report

    def read(self) -> Configuration:
        """Return the configuration; it is good for nothing if problems were reported."""
        sections = self._mapping(self._document.content, ())
        self._unknown_keys(sections, ["global", "schedules", "jobs"], (), hidden=["config"])
        if {"global", "config"} <= sections.keys():
            self._report(["config"], "is another name of 'global', which is there too; put all keys into one of them")
        name = "config" if "config" in sections else "global"
        found = {} if sections.get(name) is None else sections[name]
        settings = self._section(found, Global, (name,)) or Global()
        self._plugin(settings.storage, (name, "storage"))
        self._plugin(settings.verifier, (name, "verifier"))
        schedules = {
            key: self._schedule(value, ("schedules", key))
            for key, value in self._required(sections, "schedules", "at least one schedule").items()
        }
        jobs = {}
        for key, value in self._required(sections, "jobs", "the jobs by their names, or {}").items():
            job = self._job(key, value, settings, schedules)
            if job is not None:
                jobs[key] = job
        return Configuration(self._document.path, settings, schedules, jobs)

    def _required(self, sections: Mapping[str, Any], name: str, what: str) -> Mapping[str, Any]:
        if name not in sections:
            self._report((), f"the section '{name}' is missing; it has {what}")
            return {}
        return self._mapping(sections[name], (name,))

    def _mapping(self, value: object, key: tuple[str, ...]) -> Mapping[str, Any]:
        if isinstance(value, dict):
            return value
        self._report(key, f"expected keys and values, got {_shown(value)}")
        return {}

    def _schedule(self, value: object, key: tuple[str, ...]) -> Schedule:
        tags = self._mapping(value, key)
        if value == {}:
            self._report(key, "has no tag; write one as in 'daily: {interval: 1d, keep: 7}'")
        found = {}
        for name, content in tags.items():
            if name.startswith(MANUAL):
                self._report((*key, name), f"tags that begin with '{MANUAL}' are given by hand and in no schedule")
            elif not name.strip() or name != name.strip() or "," in name or not name.isprintable():
                self._report((*key, name), "a tag has no comma, no control character, and no blank at its ends")
            tag = self._section(content, ScheduledTag, (*key, name))
            if tag is not None:
                found[name] = tag
        return schedule_of(found)

    def _job(self, name: str, value: object, settings: Global, schedules: Mapping[str, Schedule]) -> JobEntry | None:
        key = ("jobs", name)
        if not _JOB_NAME.fullmatch(name):
            self._report(
                key,
                "a job's name is that of its folder: letters, digits and _ . @ + : -, the first a letter, a digit or "
                "_, 200 at most",
            )
        entry = self._section(value, _Entry, key)
        if entry is None:
            return None
        self._plugin(entry.source, (*key, "source"))
        self._plugin(entry.storage, (*key, "storage"))
        self._plugin(entry.verifier, (*key, "verifier"))
        schedule = schedules.get(entry.schedule)
        if schedule is None:
            there = f"there are: {', '.join(schedules) or 'none'}"
            self._report(
                (*key, "schedule"), f"no schedule '{entry.schedule}'; {_near(entry.schedule, schedules)}{there}"
            )
            return None
        self._unknown_keys(entry.keep, list(schedule), (*key, "keep"))
        verifier = entry.verifier or settings.verifier
        limit = settings.time_limit if entry.time_limit is None else entry.time_limit
        return JobEntry(
            name=name,
            source=entry.source,
            schedule_name=entry.schedule,
            schedule={tag: one._replace(keep=entry.keep.get(tag, one.keep)) for tag, one in schedule.items()},
            storage=section(entry.storage or settings.storage),
            verifier=section(verifier) if verifier else None,
            expire=settings.expire if entry.expire is None else entry.expire,
            time_limit=limit or None,
            line=self._document.line(key),
        )

    def _plugin(self, value: Mapping[str, Any] | str | None, key: tuple[str, ...]) -> None:
        """See that a plugin's section has a type, and nothing of backy 2 beside it."""
        if value is None or (isinstance(value, str) and value):
            return
        name = value.get("type") if isinstance(value, Mapping) else None
        if not isinstance(name, str) or not name:
            self._report(key, "the key 'type' is missing; it names the plugin, as in 'type: file'")
        if isinstance(value, Mapping) and "backend" in value:
            self._report((*key, "backend"), _RETIRED["backend"])

    def _section(self, value: object, wanted: type[Section], key: tuple[str, ...]) -> Section | None:
        """Turn a mapping into `wanted`, or report everything that is wrong with it."""
        try:
            return convert(value, wanted)
        except msgspec.ValidationError as error:
            before = len(self._document.problems)
            content = self._mapping(value, key)
            if isinstance(value, dict):
                self._keys(content, wanted, key)
            if len(self._document.problems) == before:
                self._report(key, _message(error))
            return None

    def _keys(self, content: Mapping[str, Any], wanted: type[msgspec.Struct], key: tuple[str, ...]) -> None:
        fields = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
        self._unknown_keys(content, list(fields), key)
        for name, known in fields.items():
            if name not in content:
                if known.required:
                    self._report(key, f"the key '{name}' is missing")
                continue
            try:
                convert(content[name], known.type)
            except msgspec.ValidationError as error:
                message, shown = _message(error), _shown(content[name])
                self._report((*key, name), message if shown in message else f"{message}, got {shown}")

    def _unknown_keys(
        self, content: Iterable[str], known: list[str], key: tuple[str, ...], hidden: Iterable[str] = ()
    ) -> None:
        for name in content:
            if name not in known and name not in hidden:
                hint = _RETIRED.get(name) or f"{_near(name, known)}there are: {', '.join(known)}"
                self._report((*key, name), f"unknown key; {hint}")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'? " if near else ""


def _message(error: msgspec.ValidationError) -> str:
    """Return what msgspec says without the path, which is told otherwise, and without what it got."""
    text = str(error).partition(" - at `")[0].partition(", got ")[0].replace("`", "")
    return text[:1].lower() + text[1:]


def _shown(value: object) -> str:
    """Return a value as users wrote it, cut short."""
    return "nothing" if value is None else reprlib.repr(value)
