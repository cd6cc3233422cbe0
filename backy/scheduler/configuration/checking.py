"""Checks all of a configuration, with its plugins and what it needs of the machine, without touching a source."""

import os
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import msgspec
import pluggy

from backy.api import Job
from backy.errors import BackyError, ConfigError, PluginError, StorageError
from backy.making.making import try_storage
from backy.plugins.discovery import Kind, Plugin
from backy.plugins.events import Events
from backy.plugins.loading import chosen, invoke, managed
from backy.repository.config import plain
from backy.scheduler.configuration.configuration import Configuration, Global, JobEntry, JobKeys, Reading, Written, load
from backy.scheduler.configuration.document import ConfigurationError, Problem
from backy.scheduler.configuration.location import global_name, listener
from backy.text.phrases import alternatives


def check(path: Path) -> tuple[Configuration, list[str]]:
    """Read the configuration and check all of it, and return it if it is sound, with what this user may not look at.

    Raises:
        ConfigurationError: the file can not be read, or anything in it is wrong; the error has all problems.
    """
    found = Reading(path)
    unknown: list[str] = []
    # Also if there are problems already: users want to see all at once.
    around = [*_surroundings(found, unknown), *_same_sources(found)]
    if problems := [*found.document.problems, *plugin_problems(found), *around]:
        raise ConfigurationError(path, problems)
    return found.configuration, unknown


def explain(path: Path, job: str) -> Iterator[dict[str, object]]:
    """Yield all that a job comes to: each `key` with its `value`, and where that is `from`.

    Raises:
        ConfigurationError: the file can not be read, or anything in it is wrong.
        ConfigError: there is no such job.
    """
    load(path)
    found = Reading(path)
    if (written := found.written.get(job)) is None:
        raise ConfigError(f"no job '{job}'; {alternatives(job, found.written)}")
    sections, name = cast("dict[str, Any]", found.document.content), written["schedule"]
    for key, default in msgspec.to_builtins(JobKeys(schedule=""), enc_hook=plain).items():
        above = ("jobs", job) if (sections["jobs"][job] or {}).get(key) is not None else (global_name(sections),)
        if written.get(key) is not None:
            yield {"key": key, "value": written[key], "from": found.document.where((*above, key))}
        elif default:
            yield {"key": key, "value": default, "from": "default"}
    for tag, one in msgspec.to_builtins(found.configuration.jobs[job].schedule, enc_hook=plain).items():
        yield {"key": f"schedule.{tag}", "value": one, "from": found.document.where(("schedules", name, tag))}


def plugin_problems(found: Reading) -> Iterator[Problem]:
    """Yield the problems of all sections of plugins, in their order, and then those of event plugins."""
    # Also a failure is remembered: thousands of jobs may name the same broken plugin.
    loaded = cache(_loaded)
    for written in found.sections:
        plugin = loaded(written.kind, written.section.type)
        for text in [str(plugin)] if isinstance(plugin, PluginError) else _mistakes(*plugin, written, found):
            yield Problem(*found.document.place((*written.key, written.kind.word)), ".".join(written.key), text)
    with Events.installed(found.configuration.hooks) as events:
        for name, text in events.problems():
            yield Problem(*found.document.place(("hooks", name)), f"hooks.{name}", text)


def _loaded(kind: Kind, name: str) -> tuple[Plugin, pluggy.PluginManager] | PluginError:
    try:
        plugin = chosen(kind, name)
        return plugin, managed(plugin)
    except PluginError as error:
        return error


def _mistakes(plugin: Plugin, manager: pluggy.PluginManager, written: Written, found: Reading) -> list[str]:
    """Return what a plugin refuses of its section."""
    name = written.key[1] if len(written.key) > 1 else "global"
    job = Job(name, name, found.configuration.settings.base_dir / name)
    try:
        # A plugin checks its section when it is made; that touches no source.
        invoke(plugin, manager, f"backy_{written.kind.word}", config=written.section.options, job=job)
    except BackyError as error:
        # `typed` tells all mistakes of a section in one error.
        return str(error).removeprefix("config.").split("; config.")
    return []


def _surroundings(found: Reading, unknown: list[str]) -> Iterator[Problem]:
    """Yield what is missing of files, programs and addresses; note in `unknown` what this user may not look at."""
    wrong = {problem.key for problem in found.document.problems}
    settings, section = found.configuration.settings, global_name(found.document.content)
    for name, problems in (
        ("base-dir", _base_directory(found.configuration, unknown)),
        ("status-file", _folder_of(settings.status_file)),
        ("metrics-file", _folder_of(settings.metrics_file)),
        ("overview", _folder_of(settings.overview)),
        ("backup-completed-callback", _program(settings.backup_completed_callback)),
        ("notify.program", _program(settings.notify.program if settings.notify else None)),
        ("telnet-addrs", _addresses(found.configuration)),
    ):
        key = f"{section}.{name}"
        # What is wrong is not in the settings, which have a default in its place.
        try:
            for text in () if key in wrong else problems:
                yield Problem(*found.document.place(key.split(".")), key, text)
        except PermissionError as error:
            unknown.append(f"{key}: {error.filename}")


def _base_directory(configuration: Configuration, unknown: list[str]) -> Iterator[str]:
    """Yield what is wrong with the base directory, or keeps storages from working in it."""
    base = configuration.settings.base_dir
    if not base.is_dir():
        yield f"there is no folder {base}: is its disk mounted? A new base-dir is to be made by hand"
        return
    tried = set()
    for job in configuration.jobs.values():
        # A job's own folder may be the mount of another disk.
        folder = next(path for path in (job.directory, base) if path.is_dir())
        if (key := (job.config.storage.type, folder.stat().st_dev)) not in tried:
            tried.add(key)
            yield from _storage(job, folder, unknown)


def _storage(job: JobEntry, folder: Path, unknown: list[str]) -> Iterator[str]:
    """Try a storage, and yield why it can not work there."""
    try:
        try_storage(job.config.storage.type, folder)
    except PermissionError:
        unknown.append(f"whether storage '{job.config.storage.type}' can work in {folder}")
    except OSError as error:
        yield f"nothing can be stored in {folder}: {error.strerror}"
    except StorageError as error:
        yield f"storage '{job.config.storage.type}', which {job.name} has, can not work in {folder}: {error}"
    except (PluginError, ConfigError):
        pass  # told of the section itself


def _addresses(configuration: Configuration) -> Iterator[str]:
    """Yield which addresses of the console are none of this machine."""
    # Not the default: whether a machine has IPv6 is no mistake of the file.
    is_default = configuration.settings.telnet_addrs == Global().telnet_addrs
    for address in () if is_default else configuration.telnet_addresses:
        try:
            # Any free port: the right one is that of the running scheduler.
            listener(address, 0).close()
        except socket.gaierror:
            yield f"'{address}' is no IP address"
        except OSError as error:
            yield f"the console can not listen at {address}: {os.strerror(error.errno or 0)}"


def _same_sources(found: Reading) -> Iterator[Problem]:
    """Yield the jobs whose source another job has already."""
    first: dict[bytes, str] = {}
    for written in found.sections:
        if written.kind is Kind.SOURCE:
            content = msgspec.json.encode(written.section.options, order="deterministic")
            job = ".".join(written.key)
            if (other := first.setdefault(content, job)) != job:
                text = f"is the source of {other}, too: its image is backed up twice"
                yield Problem(*found.document.place((*written.key, "source")), f"{job}.source", text)


def _folder_of(path: Path | None) -> Iterator[str]:
    """Yield what keeps a file from being written at `path`."""
    if path and not path.parent.is_dir():
        yield f"there is no folder {path.parent}"


def _program(path: Path | None) -> Iterator[str]:
    """Yield why a program can not be called."""
    if path and not path.is_file():
        yield f"there is no program {path}"
    elif path and not os.access(path, os.X_OK):
        yield f"{path} is not executable"
    elif path:
        with path.open("rb") as stream:
            line = stream.readline(4096)
        words = line[2:].split()
        if line.startswith(b"#!") and (not words or not Path(os.fsdecode(words[0])).is_file()):
            yield f"{path} names a program that is not there in its first line"
