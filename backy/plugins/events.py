"""Notifies event plugins, each in a manager and behind a guard of its own."""

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
    """The event plugins of this process. An error of an observer is logged; an error of a veto ends the backup."""

    def __init__(self, managers: dict[str, pluggy.PluginManager]) -> None:
        self._managers = managers

    @classmethod
    def installed(cls) -> Events:
        """Load all event plugins; log broken ones and leave them out."""
        managers = {}
        for name, found in advertised(Kind.HOOK).items():
            if not contenders(found):
                continue  # switched off, which is no reason for a warning
            try:
                managers[name] = load(Kind.HOOK, name)
            except PluginError as error:
                log.warning("%s", error)
        return cls(managers)

    def backup_starting(self, job: Job, tags: tuple[str, ...]) -> None:
        """Ask every plugin whether a backup may start.

        Raises:
            BackyError: a plugin refuses it; the text names the plugin.
        """
        for name, manager in self._managers.items():
            try:
                manager.hook.backy_backup_starting(job=job, tags=tags)
            except (Exception, SystemExit) as error:
                # An error counts as a refusal: a veto that is broken must not let through what it is to prevent.
                reason = str(error) if isinstance(error, BackyError) else described(error)
                raise BackyError(f"hook '{name}' refuses the backup: {reason}") from error

    def backup_finished(self, job: Job, revision_id: str) -> None:
        """Notify all plugins that `revision_id` is complete."""
        self._notify("backy_backup_finished", job=job, revision_id=revision_id)

    def backup_failed(self, job: Job, error: str) -> None:
        """Notify all plugins that a backup failed."""
        self._notify("backy_backup_failed", job=job, error=error)

    def verification_failed(self, job: Job, revision_id: str, mismatches: int) -> None:
        """Notify all plugins that a fresh revision differs from its source."""
        self._notify("backy_verification_failed", job=job, revision_id=revision_id, mismatches=mismatches)

    def restore_finished(self, job: Job, revision_id: str, target: str) -> None:
        """Notify all plugins that a restore is done."""
        self._notify("backy_restore_finished", job=job, revision_id=revision_id, target=target)

    def console_commands(self) -> dict[str, ConsoleCommand]:
        """Return the console commands of all plugins by name; the first plugin wins a name that two claim."""
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
