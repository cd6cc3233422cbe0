"""Checks whether the plugins that the configuration names can be loaded and accept their sections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pluggy

from backy.api import Job
from backy.errors import BackyError, PluginError
from backy.plugins.discovery import Kind, Plugin
from backy.plugins.events import Events
from backy.plugins.loading import chosen, invoke, managed
from backy.repository.config import PluginSection
from backy.scheduler.configuration.configuration import Configuration, ConfigurationError, JobEntry, Problem, examine


def check(path: Path) -> Configuration:
    """Read the configuration and check all of it, including the sections of plugins. Return it if it is sound.

    Raises:
        ConfigurationError: the file can not be read, or anything in it is wrong; the error has all problems.
    """
    configuration, problems = examine(path)
    # Also if there are problems already: users want to see all at once.
    problems.extend(PluginCheck(configuration).problems())
    if problems:
        raise ConfigurationError(path, problems)
    return configuration


class _Loaded(NamedTuple):
    plugin: Plugin
    manager: pluggy.PluginManager


class PluginCheck:
    """Checks the plugins of all jobs. Each plugin is loaded once."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._loaded: dict[tuple[Kind, str], _Loaded | PluginError] = {}

    def problems(self) -> Iterator[Problem]:
        """Yield the problems of all jobs, in their order, and then those of event plugins."""
        for job in self._configuration.jobs.values():
            for text in self.job(job):
                yield Problem(job.line, f"jobs.{job.name}", text)
        with Events.installed(self._configuration.hook_sections) as events:
            for name, text in events.problems():
                yield Problem(self._configuration.hooks[name].line, f"hooks.{name}", text)

    def job(self, job: JobEntry) -> Iterator[str]:
        """Yield the problems with the plugins of one job."""
        sections: list[tuple[Kind, PluginSection]] = [(Kind.SOURCE, job.source), (Kind.STORAGE, job.storage)]
        sections += [(Kind.VERIFIER, section) for section in (job.verifier.sections if job.verifier else ())]
        named = Job(job.name, job.name, self._configuration.repository(job))
        for kind, section in sections:
            if text := self._problem(kind, section, named):
                yield text

    def _problem(self, kind: Kind, section: PluginSection, job: Job) -> str | None:
        loaded = self._load(kind, section.type)
        if isinstance(loaded, PluginError):
            return str(loaded)
        try:
            # A plugin checks its section when it is made; that touches no source.
            invoke(*loaded, f"backy_{kind.word}", config=section.options, job=job)
        except BackyError as error:
            return str(error).removeprefix("config.")
        return None

    def _load(self, kind: Kind, name: str) -> _Loaded | PluginError:
        # Also a failure is remembered: thousands of jobs may name the same broken plugin.
        if (kind, name) not in self._loaded:
            try:
                plugin = chosen(kind, name)
                self._loaded[kind, name] = _Loaded(plugin, managed(plugin))
            except PluginError as error:
                self._loaded[kind, name] = error
        return self._loaded[kind, name]
