"""The contracts between backy and its plugins.

A plugin is a module named by an entry point. In the groups `backy.sources`, `backy.storages` and `backy.verifiers` the
entry point's name is what users write as `type`, and the module implements that group's hooks and no others; it may
leave out those that are optional. In the group `backy.hooks` it implements any of the event hooks. Each plugin lives in
a manager of its own, so it never answers for another one. An implementation may leave out arguments that it does not
need; it may not add any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Final

import pluggy

from backy.api import Config, ConsoleCommand, Job, RestoreTarget, Source, Storage, Verifier

CONTRACT: Final = (1, 0)
"""Version of all that `backy.api` and this module promise: what is added makes a new minor version, what would break a
plugin a new major one. A plugin may name the version that it was written for, as in `BACKY_CONTRACT = "1.0"`."""

hookspec = pluggy.HookspecMarker("backy")
hookimpl = pluggy.HookimplMarker("backy")
"""Marks a plugin's functions as implementations of the hooks below."""


@hookspec(firstresult=True)
def backy_source(config: Config, job: Job) -> Source:  # type: ignore[empty-body]  # a specification has no body
    """Make the source of `job` from its section `source`; called by every command that needs the source.

    Required in `backy.sources`. Looks at `config` only: that the source exists is found out by its snapshot.
    Raises ConfigError if `config` is wrong; the command ends.
    """


@hookspec(firstresult=True)
def backy_source_config(argument: str) -> Config:  # type: ignore[empty-body]  # a specification has no body
    """Turn SOURCE of `backy init TYPE SOURCE` into a section `source` without `type`; called by `init`.

    Required in `backy.sources`. Raises ConfigError if `argument` is wrong, naming the form that it should have;
    `init` ends and makes nothing.
    """


@hookspec(firstresult=True)
def backy_restore_target(  # type: ignore[empty-body]  # a specification has no body
    argument: str, options: Mapping[str, str], config: Config, size: int, force: bool
) -> AbstractContextManager[RestoreTarget]:
    """Open the place that `backy restore TYPE:ARGUMENT` names, for an image of `size` bytes; called by `restore`.

    Optional in `backy.sources`. `options` are those given by `-o`; `config` is the section `source` of the repository
    if it has this type, else empty. What is there already is replaced only if `force` is set.
    Raises ConfigError if `argument` or `options` are wrong, TargetError if the place can not be had or is taken.
    """


@hookspec(firstresult=True)
def backy_storage(config: Config, job: Job) -> Storage:  # type: ignore[empty-body]  # a specification has no body
    """Make the storage of `job` from its section `storage`; called by every command that needs stored data.

    Required in `backy.storages`. Touches no file. Raises ConfigError if `config` is wrong; the command ends.
    """


@hookspec(firstresult=True)
def backy_verifier(config: Config, job: Job) -> Verifier:  # type: ignore[empty-body]  # a specification has no body
    """Make the verifier of `job` from its section `verifier`; called by `backup`.

    Required in `backy.verifiers`. Raises ConfigError if `config` is wrong; the backup fails and leaves no revision.
    """


@hookspec
def backy_backup_starting(job: Job, tags: tuple[str, ...]) -> None:
    """Say no to a backup: called under the lock, before anything is created.

    The one event that may veto: any exception fails the backup, and its text is the reason that is shown.
    """


@hookspec
def backy_backup_finished(job: Job, revision_id: str) -> None:
    """Learn that `revision_id` is complete; called by `backup` under its lock, once the record is durable.

    An observer, no veto: an exception is logged and changes nothing.
    """


@hookspec
def backy_backup_failed(job: Job, error: str) -> None:
    """Learn that a backup failed, and why; called by `backup` under its lock, once the new revision is removed.

    Not called for one that found repository or source busy, or was interrupted. An observer, no veto: an exception is
    logged.
    """


@hookspec
def backy_verification_failed(job: Job, revision_id: str, mismatches: int) -> None:
    """Learn that so many chunks of a fresh revision are not what the source has; called by `backup`.

    The revision is removed next. If it was made by what the source said has changed, another one that is read from end
    to end takes its place; else `backy_backup_failed` follows. An observer, no veto: an exception is logged.
    """


@hookspec
def backy_restore_finished(job: Job, revision_id: str, target: str) -> None:
    """Learn that `revision_id` was written to `target` completely; called by `restore`, after the target is durable.

    `target` is what the user wrote, `-` for standard output. An observer, no veto: an exception is logged.
    """


@hookspec
def backy_console_commands() -> Iterable[ConsoleCommand]:  # type: ignore[empty-body]  # a specification has no body
    """Offer commands for the scheduler's console; called by `scheduler` when it starts and when it reloads.

    An observer, no veto: an exception is logged, and the plugin then adds no commands.
    """
