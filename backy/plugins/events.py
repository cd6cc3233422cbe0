"""Telling event plugins what happens: each in a manager and a guard of its own."""

from __future__ import annotations

import logging

import pluggy

from backy.api import ConsoleCommand, Job
from backy.errors import BackyError, PluginError
from backy.plugins.broken import described
from backy.plugins.discovery import Kind, advertised, contenders
from backy.plugins.loading import load

log = logging.getLogger(__name__)


class Events:
    """The event plugins of this process. What an observer raises is logged; what a veto raises ends the backup."""

    def __init__(self, managers: dict[str, pluggy.PluginManager]) -> None:
        self._managers = managers

    @classmethod
    def installed(cls) -> Events:
        """Load every event plugin; one that is broken is logged and left out."""
        managers = {}
        for name, found in advertised(Kind.HOOK).items():
            if not contenders(found):
                continue
            try:
                managers[name] = load(Kind.HOOK, name)
            except PluginError as error:
                log.warning("%s", error)
        return cls(managers)

    def backup_starting(self, job: Job, tags: tuple[str, ...]) -> None:
        """Ask every plugin whether a backup may start.

        Raises:
            BackyError: one said no; the text names it.
        """
        for name, manager in self._managers.items():
            try:
                manager.hook.backy_backup_starting(job=job, tags=tags)
            except (Exception, SystemExit) as error:
                reason = str(error) if isinstance(error, BackyError) else described(error)
                raise BackyError(f"hook '{name}' refuses the backup: {reason}") from error

    def backup_finished(self, job: Job, revision: str) -> None:
        """Tell every plugin that `revision` is complete."""
        self._notify("backy_backup_finished", job=job, revision=revision)

    def backup_failed(self, job: Job, error: str) -> None:
        """Tell every plugin that a backup failed."""
        self._notify("backy_backup_failed", job=job, error=error)

    def verification_failed(self, job: Job, revision: str, mismatches: int) -> None:
        """Tell every plugin that a fresh revision differs from its source."""
        self._notify("backy_verification_failed", job=job, revision=revision, mismatches=mismatches)

    def restore_finished(self, job: Job, revision: str, target: str) -> None:
        """Tell every plugin that a restore is done."""
        self._notify("backy_restore_finished", job=job, revision=revision, target=target)

    def console_commands(self) -> dict[str, ConsoleCommand]:
        """Collect what every plugin adds to the console, by name; of two with one name the first is there."""
        commands: dict[str, ConsoleCommand] = {}
        for name, manager in self._managers.items():
            try:
                offered = [command for found in manager.hook.backy_console_commands() for command in found]
                commands = {_checked(command).name: command for command in offered} | commands
            except (Exception, SystemExit) as error:  # noqa: BLE001  # an observer changes nothing
                log.warning("hook '%s' adds no commands: it failed with %s", name, described(error))
        return commands

    def _notify(self, hook: str, **arguments: object) -> None:
        for name, manager in self._managers.items():
            try:
                getattr(manager.hook, hook)(**arguments)
            except (Exception, SystemExit) as error:  # an observer changes nothing
                log.warning("hook '%s' failed in %s with %s; nothing depends on it", name, hook, described(error))
                log.debug("this is where it happened:", exc_info=error)


def _checked(command: object) -> ConsoleCommand:
    if isinstance(command, ConsoleCommand) and command.name.isprintable() and len(command.name.split()) == 1:
        return command
    raise TypeError(f"{command!r} is no ConsoleCommand whose name is a word")
