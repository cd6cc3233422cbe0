"""Whether the plugins that jobs name can be used, and take the sections that the jobs have for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pluggy

from backy.api import Job
from backy.errors import BackyError, PluginError
from backy.plugins.discovery import Kind, Plugin
from backy.plugins.loading import chosen, invoke, managed
from backy.scheduler.config import Configuration, JobEntry, Problem


class _Loaded(NamedTuple):
    plugin: Plugin
    manager: pluggy.PluginManager


class PluginCheck:
    """Asks the plugins of many jobs; each is loaded once."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._loaded: dict[tuple[Kind, str], _Loaded | PluginError] = {}

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong, in the order of the jobs."""
        for job in self._configuration.jobs.values():
            for text in self.job(job):
                yield Problem(job.line, f"jobs.{job.name}", text)

    def job(self, job: JobEntry) -> Iterator[str]:
        """Yield what is wrong with the plugins of one job."""
        sections = {
            Kind.SOURCE: job.source,
            Kind.STORAGE: job.storage,
            Kind.VERIFIER: job.verifier,
        }
        named = Job(job.name, job.name, self._configuration.repository(job))
        for kind, section in sections.items():
            if section is not None and (text := self._trouble(kind, section, named)):
                yield text

    def _trouble(self, kind: Kind, section: Mapping[str, Any], job: Job) -> str | None:
        name = section.get("type")
        if not isinstance(name, str):
            return None  # that is a problem of its own
        loaded = self._load(kind, name)
        if isinstance(loaded, PluginError):
            return str(loaded)
        try:
            invoke(*loaded, f"backy_{kind.word}", config=section, job=job)
        except BackyError as error:
            return str(error).removeprefix("config.")
        return None

    def _load(self, kind: Kind, name: str) -> _Loaded | PluginError:
        if (kind, name) not in self._loaded:
            try:
                plugin = chosen(kind, name)
                self._loaded[kind, name] = _Loaded(plugin, managed(plugin))
            except PluginError as error:
                self._loaded[kind, name] = error
        return self._loaded[kind, name]
