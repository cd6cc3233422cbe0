"""The configuration of the scheduler, /etc/backy.conf: its keys, and reading it with all its problems at once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from backy.config import Duration, Size, convert, mistakes
from backy.plugins.discovery import Kind
from backy.plugins.events import REQUIRED
from backy.repository import config
from backy.repository.config import DISKS, NAME, NAME_RULE, Disk, GroupConfig, name_problem
from backy.repository.revision import MANUAL, PINNED, tag_problem
from backy.repository.sealed import FORMAT
from backy.retention.rules import Schedule
from backy.scheduler.configuration.beside import TURNS, Beside, Copy, Drill, Scrub, Turn
from backy.scheduler.configuration.document import ConfigurationError, Document, Key
from backy.scheduler.configuration.hours import Hours, Zone
from backy.scheduler.configuration.location import Limits, Location, Notify, global_name
from backy.text.phrases import alternatives


class Global(Location, frozen=True, kw_only=True, rename="kebab"):
    """The section `global`: settings of the scheduler. It has keys of `JobKeys`, too, as defaults of all jobs."""

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
    overview: Path | None = None
    """Folder of the pages that show all jobs, as `backy overview` writes them; None for none."""
    backup_completed_callback: Path | None = None
    """A program that is called after each backup."""
    trash: Duration = config.TRASH
    """How long a revision stays in the trash after it was forgotten or has expired."""
    longest_outage: Duration = config.LONGEST_OUTAGE
    """How long the server may be off between two backups: a clock that says more is not believed."""
    limits: Limits | None = None
    """How fast all jobs together read or write at most; None for any rate."""
    notify: Notify | None = None
    """Who is told of what needs somebody; None for nobody."""


class JobKeys(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """A job as it is written below `jobs`. Keys that it lacks are those of `global`."""

    source: config.SourceSection | None = None
    """The image to back up: `type` names the source, the other keys belong to it."""
    disks: dict[str, Disk] | None = None
    """The images of a machine with several disks, in place of `source`."""
    pull: str | None = None
    """The repository of another server of which this one is a copy, in place of `source`, as `backy pull` takes it."""
    tags: tuple[str, ...] = ()
    """Tags of the revisions that are pulled; all without any."""
    sla: Duration | None = None
    """How old what was pulled may become; None for one and a half of the shortest interval."""
    rate: Size | None = None
    """Bytes a second, at most, that are pulled."""
    schedule: str
    """The name of a schedule."""
    moment: config.PluginSection | None = None
    """What brings the writers to rest while snapshots are taken."""
    attachments: dict[config.AttachmentName, str] = {}
    """What revisions get beside the image: what a program prints, by the name of the file."""
    keep: dict[str, Annotated[int, msgspec.Meta(ge=1, le=config.MOST_KEPT)]] = {}
    """Numbers of revisions to keep that differ from the schedule's, by tag."""
    storage: config.StorageSection = config.StorageSection.named("chunked")
    """Storage of the images."""
    verifier: config.VerifierSections | None = None
    """Verifiers of new revisions; None leaves the choice to the source."""
    expire: bool = True
    """Whether revisions expire by the schedule."""
    time_limit: Duration | None = None
    """Time after which a backup is ended; 0 or None means never."""
    standstill: Duration | None = Duration(hours=1)
    """Time without a byte read or stored after which a backup is ended; 0 or None means never."""
    max_size: Size | None = None
    """Space that a repository may take: from then on its job makes no backups; 0 or None means any."""
    reserve: Size = config.RESERVE
    """Space in each repository for commands that free some when the disk is full; 0 means none."""
    quarantine: config.Quarantine = config.Quarantine()
    """How much evidence of damage and differences each repository keeps."""
    copies: dict[str, Copy] | None = None
    """Copies of all jobs elsewhere, by their names."""
    scrub: Scrub | None = None
    """How the repositories are read again and again; None for not at all."""
    drill: Drill | None = None
    """How it is proved again and again that they can be restored; None for not at all."""
    hours: Hours | None = None
    """When backups may begin; None for any time."""
    time_zone: Zone | None = None
    """That of the hours; None for that of the machine."""


class JobEntry(NamedTuple):
    """A job with its settings, those of `global` included."""

    directory: Path
    """The folder of its repository in the base directory."""
    schedule: Schedule
    config: config.JobConfig
    """What the `config` of its repository has to have, except for what tells that repository from others."""
    time_limit: timedelta | None = None
    standstill: timedelta | None = None
    max_size: int | None = None
    beside: Beside | None = None
    """What is done in place of a backup."""
    part: str = ""
    """Name of the copy that is pushed, `scrub` or `drill`; empty for what makes the revisions in the directory."""
    hours: Hours | None = None
    """When it may begin."""

    @property
    def copy(self) -> Copy | None:
        """What is copied; None if nothing is."""
        return self.beside if isinstance(self.beside, Copy) else None

    @property
    def verb(self) -> str:
        """The command that does the job."""
        if isinstance(self.beside, Turn):
            return self.beside.name
        return "push" if self.part else "pull" if self.copy else "backup"

    def doing(self, tags: Sequence[str]) -> str:
        """Return what is logged of a run with these tags."""
        return f"{self.verb} {self.beside.words[-1]}" if self.beside else f"backing up as {','.join(tags)}"

    @property
    def name(self) -> str:
        """The name of the job, that of its folder; that of a copy has its own name below."""
        return f"{self.directory.name}/{self.part}" if self.part else self.directory.name


class Configuration(NamedTuple):
    """All of /etc/backy.conf."""

    path: Path
    settings: Global
    schedules: Mapping[str, Schedule]
    jobs: Mapping[str, JobEntry]
    hooks: dict[str, dict[str, Any]]
    """The sections of event plugins by the plugins' names."""

    @property
    def telnet_addresses(self) -> tuple[str, ...]:
        """The addresses of the console; none if it is switched off."""
        found = self.settings.telnet_addrs
        texts = found.split(",") if isinstance(found, str) else found
        return tuple(text.strip() for text in texts if text.strip())


def load(path: Path) -> Configuration:
    """Read the configuration, without the plugins that it names.

    Raises:
        ConfigurationError: the file can not be read, or anything in it is wrong; the error has all problems.
    """
    # Plugins are loaded with the jobs: a missing one harms the jobs that use it, and no others.
    found = Reading(path)
    if found.document.problems:
        raise ConfigurationError(path, found.document.problems)
    return found.configuration


def _hours(merged: Mapping[str, Any], hours: Hours | None) -> Hours | None:
    return Hours((*hours[:2], merged["time_zone"])) if hours else None


class Written(NamedTuple):
    """The section of a plugin as it is written in `global`, in a job or in a disk of one."""

    key: Key
    """The path of the section that it is in."""
    kind: Kind
    section: config.PluginSection


_IMAGES = {"source": 0, DISKS: 0, "pull": 0}.keys()
"""The keys of a job that say what its images are, of which it has one."""


def _filled(value: Any, job: str) -> Any:  # noqa: ANN401  # any value of YAML
    """Return a value with the name of a job in place of `${job}`."""
    text = json.dumps(value, default=str)
    return json.loads(text.replace("${job}", json.dumps(job)[1:-1])) if "${job}" in text else value


_PLUGINS: Mapping[str, tuple[Kind, Any]] = {
    "source": (Kind.SOURCE, config.SourceSection),
    "storage": (Kind.STORAGE, config.StorageSection),
    "verifier": (Kind.VERIFIER, config.VerifierSections),
    "moment": (Kind.MOMENT, config.PluginSection),
}


class Reading:
    """A file that is converted to a configuration, as far as it is sound."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises ConfigurationError if it can not be read, or is not YAML."""
        self.document = Document(path)
        """The file, with the problems that were found in it."""
        self._report = self.document.report
        self.written: dict[str, dict[str, Any]] = {}
        """What is written of each job, in it or in `global`."""
        self.sections: list[Written] = []
        """All sections of plugins but those of event plugins, also of jobs that are wrong otherwise."""
        self.configuration = self._read()
        """It must not be used if there are problems."""

    def _read(self) -> Configuration:
        sections = self.document.mapping(self.document.content, ())
        names = ["hooks", "schedules", "jobs"]
        self.document.keys(sections, ["global", "include", *names], (), also=["config"])
        if "include" in sections:
            own = {name: dict(self.document.mapping(sections.get(name) or {}, (name,))) for name in names}
            self.document.include(sections["include"], own)
            sections = {**sections, **{name: one for name, one in own.items() if one or name in sections}}
            self.document.content = sections
        settings = self._global(sections)
        written = self._required(sections, "schedules", "at least one schedule")
        # All of their tags, also wrong ones: those of which there is a mistake are no unknown ones besides.
        self._tags = {name: list(value) if isinstance(value, dict) else [] for name, value in written.items()}
        schedules = {name: self._schedule(value, ("schedules", name)) for name, value in written.items()}
        self._hooks = self._hook_sections(sections)
        jobs = {}
        for name, value in self._required(sections, "jobs", "the jobs by their names, or {}").items():
            jobs.update({one.name: one for one in self._job(name, value, settings, schedules)})
        return Configuration(self.document.path, settings, schedules, jobs, self._hooks)

    def _hook_sections(self, sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name, value in self.document.mapping(sections.get("hooks") or {}, ("hooks",)).items():
            # `slack:` without anything below it is None in YAML: a plugin without options that has to be there.
            found[name] = dict(self.document.mapping({} if value is None else value, ("hooks", name)))
            if not isinstance(found[name].get(REQUIRED, True), bool):
                self._report(("hooks", name, REQUIRED), "expected true or false")
        return found

    def _global(self, sections: Mapping[str, Any]) -> Global:
        name = global_name(sections)
        if {"global", "config"} <= sections.keys():
            self._report((name,), "is another name of 'global', which is there too; put all into one of them")
            # Its mistakes, too: both will be one section.
            self._settings(sections["global"], "global")
        return self._settings(sections.get(name), name)

    def _settings(self, value: object, name: str) -> Global:
        # `global:` without anything below it is None in YAML.
        found = self.document.mapping({} if value is None else value, (name,))
        self.document.keys(found, Global.__struct_encode_fields__ + JobKeys.__struct_encode_fields__, (name,))
        own = {key: found[key] for key in JobKeys.__struct_encode_fields__ if key in found}
        filled = _filled(own, name)
        # a source is that of the jobs
        self._plugins({key: one for key, one in filled.items() if key not in _IMAGES}, (name,))
        self.document.section({"schedule": "", **filled}, JobKeys, (name,))
        # the defaults of all jobs
        self._inherited = {key: one for key, one in own.items() if key not in dict(mistakes(filled, JobKeys))}
        return self.document.section(found, Global, (name,)) or Global()

    def _required(self, sections: Mapping[str, Any], name: str, what: str) -> Mapping[str, Any]:
        """Return a section that has to be there; `what` tells users the content of a missing one."""
        if name not in sections:
            self._report((), f"the section '{name}' is missing; it has {what}")
            return {}
        return self.document.mapping(sections[name], (name,))

    def _schedule(self, value: object, key: Key) -> Schedule:
        found = {}
        for name, content in self.document.mapping(value, key).items():
            if name.startswith((MANUAL, PINNED)):
                self._report((*key, name), f"no schedule gives tags that begin with '{MANUAL}' or '{PINNED}'")
            elif problem := tag_problem(name):
                self._report((*key, name), problem)
            if (tag := self.document.section(content, config.ScheduledTag, (*key, name))) is not None:
                found[name] = tag
        if value == {}:
            self._report(key, "has no tag; write one as in 'daily: {interval: 1d, keep: 7}'")
        return found

    def _job(self, name: str, value: object, settings: Global, schedules: Mapping[str, Schedule]) -> Iterator[JobEntry]:
        """Yield a job, and its copies, unless something is wrong."""
        key = ("jobs", name)
        self._name(key, settings)
        # `web1:` without anything below it is None in YAML: all of it is in `global`.
        own = self.document.mapping({} if value is None else _filled(value, name), key)
        # A key that is not there is as in `global`, and so is null.
        own = {key: one for key, one in own.items() if one is not None or key not in JobKeys.__struct_encode_fields__}
        above = {key: one for key, one in self._inherited.items() if key not in _IMAGES or not _IMAGES & own.keys()}
        found = _filled(above, name) | own
        self.written[name] = found
        self._plugins({key: one for key, one in found.items() if key in own or key in _IMAGES}, key)
        entry = self.document.section(found, JobKeys, key)
        schedule = self._chosen(found, schedules, key)
        self._images(found, own, key)
        if schedule is not None and isinstance(own.get("keep"), dict):
            # A misspelt tag would keep revisions longer or shorter than was meant, without a word.
            self.document.keys(own["keep"], self._tags[found["schedule"]], (*key, "keep"))
        if entry is None or schedule is None:
            return
        merged = msgspec.structs.asdict(settings) | msgspec.structs.asdict(entry)
        tags = {tag: msgspec.structs.replace(one, keep=entry.keep.get(tag, one.keep)) for tag, one in schedule.items()}
        content = {**merged, "format": FORMAT, "schedule": tags, "hooks": self._hooks or None}
        content["limits"] = settings.limits.named if settings.limits else {}
        kind = GroupConfig if entry.disks else config.JobConfig
        try:
            written = kind(**{name: content[name] for name in kind.__struct_fields__ if name in content})
        except ValueError:
            if self.document.problems:
                return  # what is wrong with it was reported
            raise
        pull = Copy(to=entry.pull, tags=entry.tags, sla=entry.sla, rate=entry.rate) if entry.pull else None
        limits = (merged["time_limit"] or None, merged["standstill"] or None, int(merged["max_size"] or 0) or None)
        made = JobEntry(settings.base_dir / name, tags, written, *limits, pull, hours=_hours(merged, merged["hours"]))
        yield made
        for part, one in (merged["copies"] or {}).items():
            problem = name_problem(part) or (f"'{part}' is no name of a copy" if part in TURNS else None)
            if problem := problem or (None if one.to else "the key 'to' is missing: where to"):
                self._report((*key, "copies", part), problem)
            push = msgspec.structs.replace(one, to=one.to + name) if one.to.endswith("/") else one
            yield made._replace(beside=push, part=part, hours=_hours(merged, one.hours) or made.hours)
        for turn in filter(None, (merged["scrub"], merged["drill"])):
            # a scrub takes as long as there is to read, and a drill has a limit of its own
            hours = _hours(merged, turn.hours) or made.hours
            yield made._replace(schedule=turn.schedule, time_limit=None, beside=turn, part=turn.name, hours=hours)

    def _images(self, job: Mapping[str, Any], own: Mapping[str, Any], key: Key) -> None:
        """Report a job that has no image, or several, or disks that can not have their names."""
        disks = job.get(DISKS)
        there = [name for name in _IMAGES if job.get(name) is not None]
        if not there or disks == {}:
            self._report(key, "the key 'source' is missing: the image to back up, or 'disks' with several")
        if len(there) > 1:
            self._report(key, f"a job has a 'source', 'disks' or 'pull', and not two of them: {', '.join(there)}")
        for name in () if "pull" in there else sorted({"tags", "sla", "rate"} & own.keys()):
            self._report((*key, name), "goes with 'pull'; each of 'copies' has its own")
        for name, disk in disks.items() if isinstance(disks, dict) else ():
            self._plugins(disk, (*key, DISKS, name))
            if problem := name_problem(name):
                self._report((*key, DISKS, name), problem)
            if isinstance(disk, dict) and "source" not in disk:
                self._report((*key, DISKS, name), "the key 'source' is missing: the image to back up")

    def _name(self, key: Key, settings: Global) -> None:
        """Report a name that no folder in the base directory can have."""
        if not NAME.fullmatch(key[-1]):
            self._report(key, f"a job's name is that of its folder: {NAME_RULE}")
        if settings.base_dir / key[-1] == settings.status_path:
            self._report(key, "is the name of the status file; call the job otherwise, or set global.status-file")

    def _chosen(self, job: Mapping[str, Any], schedules: Mapping[str, Schedule], key: Key) -> Schedule | None:
        """Return the schedule that a job names. Report an unknown one and return None."""
        # Taken from the document: a job with other problems has no entry, and users want to see this one, too.
        name = job.get("schedule")
        # what is no text is reported with the other keys of the job
        if isinstance(name, str) and name not in schedules:
            self._report((*key, "schedule"), f"no schedule '{name}'; {alternatives(name, schedules)}")
        return schedules.get(name) if isinstance(name, str) else None

    def _plugins(self, content: object, key: Key) -> None:
        """Note the sections of plugins in a section, and report the key `backend` in that of a source."""
        for name, (kind, wanted) in _PLUGINS.items():
            if not isinstance(content, dict) or name not in content:
                continue
            # Files of backy 2 have it. The plugin would refuse it, too, but `load` does not ask that.
            if kind is Kind.SOURCE and isinstance(content[name], dict) and "backend" in content[name]:
                self._report((*key, name, "backend"), "write 'storage: chunked' or 'storage: cow' beside 'source'")
            # What is no section at all is told with the other keys.
            with suppress(msgspec.ValidationError):
                found = convert(content[name], wanted)
                sections = found if isinstance(found, config.VerifierSections) else [found]
                self.sections += [Written(key, kind, section) for section in sections]
