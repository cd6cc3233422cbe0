"""The hooks of plugins.

A plugin is a module that an entry point names. In the groups `backy.sources`, `backy.storages` and `backy.verifiers`,
users write the entry point's name as `type`. The module implements the hooks of its group and no others; it may leave
out optional ones. In the group `backy.hooks` it implements at least one of the events. An implementation may leave out
arguments that it does not need. It may not add any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Final

import pluggy

# not by way of backy.api: the longest chain of imports goes through here
from backy.contract.commands import ConsoleCommand
from backy.contract.images import Config, Job
from backy.contract.sources import RestoreTarget, Source
from backy.contract.storages import Storage
from backy.contract.verifiers import Verifier

CONTRACT: Final = (1, 0)
"""Version of the contract: `backy.api` and this module. An addition makes a new minor version. A change that breaks a
plugin makes a new major one. A plugin may name the version that it was written for: `BACKY_CONTRACT = "1.0"`."""

hookspec = pluggy.HookspecMarker("backy")
hookimpl = pluggy.HookimplMarker("backy")
"""Marks a plugin's functions as implementations of the hooks below."""


@hookspec(firstresult=True)
def backy_source(config: Config, job: Job) -> Source:  # type: ignore[empty-body]  # a specification has no body
    """Make the source of `job` from its section `source`. Called by every command that needs the source.

    Required in `backy.sources`. Check `config` only. Whether the source exists is checked by its `snapshot`.
    Raise ConfigError if `config` is wrong; the command ends.
    """


@hookspec(firstresult=True)
def backy_source_config(argument: str) -> Config:  # type: ignore[empty-body]  # a specification has no body
    """Turn SOURCE of `backy init TYPE SOURCE` into a section `source` without `type`. Called by `init`.

    Required in `backy.sources`. Raise ConfigError if `argument` is wrong, and name the form that it should have;
    `init` ends and makes nothing.
    """


@hookspec(firstresult=True)
def backy_restore_target(  # type: ignore[empty-body]  # a specification has no body
    argument: str, options: Mapping[str, str], config: Config, size: int, force: bool
) -> AbstractContextManager[RestoreTarget]:
    """Open the place that `backy restore TYPE:ARGUMENT` names, for an image of `size` bytes. Called by `restore`.

    Optional in `backy.sources`. `options` has the options `-o NAME=VALUE`. `config` is the section `source` of the
    repository if it has this type, else empty. Replace an existing image only if `force` is true.
    Raise ConfigError if `argument` or `options` are wrong, and TargetError if the place can not be opened or is in use.
    """


@hookspec(firstresult=True)
def backy_storage(config: Config, job: Job) -> Storage:  # type: ignore[empty-body]  # a specification has no body
    """Make the storage of `job` from its section `storage`. Called by every command that needs stored data.

    Required in `backy.storages`. Do not touch any file. Raise ConfigError if `config` is wrong; the command ends.
    """


@hookspec(firstresult=True)
def backy_verifier(config: Config, job: Job) -> Verifier:  # type: ignore[empty-body]  # a specification has no body
    """Make the verifier of `job` from its section `verifier`. Called by `backup`, and by `init` if it names one.

    Required in `backy.verifiers`. Raise ConfigError if `config` is wrong; the backup fails and leaves no revision.
    """


@hookspec
def backy_backup_starting(job: Job, tags: tuple[str, ...]) -> None:
    """Allow or refuse a backup. Called by `backup` under its lock, before anything is created.

    The only event that may veto: any exception fails the backup, and its text is shown as the reason.
    """


@hookspec
def backy_backup_finished(job: Job, revision_id: str) -> None:
    """Note that `revision_id` is complete. Called by `backup` under its lock, after its record is durable.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_backup_failed(job: Job, error: str) -> None:
    """Note that a backup failed. Called by `backup` under its lock, after the new revision is removed.

    Not called if repository or source were busy, or if the backup was interrupted. `error` is the text that users see.
    An exception is logged and changes nothing.
    """


@hookspec
def backy_verification_failed(job: Job, revision_id: str, mismatches: int) -> None:
    """Note that `mismatches` chunks of a fresh revision differ from the source. Called by `backup`.

    The revision is removed after this. If it was made from the changes that the source reported, a new one that reads
    everything follows; else `backy_backup_failed` is called. An exception is logged and changes nothing.
    """


@hookspec
def backy_restore_finished(job: Job, revision_id: str, target: str) -> None:
    """Note that `revision_id` was restored. Called by `restore`, after the target is durable.

    `target` is the text that the user wrote; `-` is standard output. An exception is logged and changes nothing.
    """


@hookspec
def backy_console_commands() -> Iterable[ConsoleCommand]:  # type: ignore[empty-body]  # a specification has no body
    """Return commands for the scheduler's console. Called by `scheduler` when it starts and when it reloads.

    An exception is logged, and the plugin adds no commands.
    """
