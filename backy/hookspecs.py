"""The hooks of plugins.

A plugin is a module that an entry point names. In the groups `backy.sources`, `backy.storages`, `backy.verifiers`,
`backy.moments` and `backy.drills`, users write the entry point's name as `type`. The module implements the hooks of its
group and no others; it may leave out optional ones. In the group `backy.hooks` it implements at least one of the
events. Their `config` is the plugin's own section of `hooks`, without the key `required`; it is empty if there is none.
An implementation may leave out arguments that it does not need. It may not add any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final

import pluggy

# not by way of backy.api: the longest chain of imports goes through here
from backy.contract.images import Config, Job, LiveTarget, RestoreTarget
from backy.contract.plugins import ConsoleCommand, Drill, Moment, RevisionInfo, Source, Verifier
from backy.contract.storages import Purged, Storage

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
def backy_live_restore(argument: str, options: Mapping[str, str], config: Config) -> LiveTarget:  # type: ignore[empty-body]  # ditto
    """Make what `backy restore --live TYPE:ARGUMENT` restores to. Called by `restore`.

    Optional in `backy.sources`. `options` and `config` are as for `backy_restore_target`. Open nothing.
    Raise ConfigError if `argument` or `options` are wrong.
    """


@hookspec(firstresult=True)
def backy_storage(config: Config, job: Job) -> Storage:  # type: ignore[empty-body]  # a specification has no body
    """Make the storage of `job` from its section `storage`. Called by every command that needs stored data.

    Required in `backy.storages`. Do not touch any file. Raise ConfigError if `config` is wrong; the command ends.
    """


@hookspec(firstresult=True)
def backy_storage_config(argument: str) -> Config:  # type: ignore[empty-body]  # a specification has no body
    """Turn ARGUMENT of `backy init --storage NAME:ARGUMENT` into a section `storage` without `type`. Called by `init`.

    Optional in `backy.storages`. Raise ConfigError if `argument` is wrong, and name the form that it should have;
    `init` ends and makes nothing.
    """


@hookspec(firstresult=True)
def backy_verifier(config: Config, job: Job) -> Verifier:  # type: ignore[empty-body]  # a specification has no body
    """Make the verifier of `job` from its section `verifier`. Called by `backup`, and by `init` if it names one.

    Required in `backy.verifiers`. Raise ConfigError if `config` is wrong; the backup fails and leaves no revision.
    """


@hookspec(firstresult=True)
def backy_moment(config: Config, job: Job) -> AbstractContextManager[Moment]:  # type: ignore[empty-body]  # a specification has no body
    """Make what brings the writers of `job` to rest while snapshots are taken, from its section `moment`.

    Called by `backup`, which enters it right before the snapshots and leaves it right after them, before anything is
    read. Required in `backy.moments`. Let the writers go on in any case, also if backy is killed: `backy.resting` does.
    Raise ConfigError if `config` is wrong; the backup fails and leaves no revision. So it does for a SourceError of the
    context: one that has not kept the writers at rest all the time ends with that.
    """


@hookspec(firstresult=True)
def backy_drill(config: Config, job: Job) -> Drill:  # type: ignore[empty-body]  # a specification has no body
    """Make what proves that a revision of `job` can be restored. Called by `drill`.

    Required in `backy.drills`. `config` has the options of the command. Raise ConfigError if it is wrong; the command
    ends.
    """


@hookspec
def backy_hook_config(config: Config) -> None:
    """Check the plugin's section of `hooks`. Called by `check-config`.

    Optional. Raise ConfigError if `config` is wrong.
    """


@hookspec
def backy_backup_starting(job: Job, tags: tuple[str, ...], config: Config) -> None:
    """Allow or refuse a backup. Called by `backup` under its lock, before anything is created.

    This event may veto: a BackyError fails the backup, and its text is shown as the reason. Any other
    exception, and a call that does not end in time, is logged and allows it, unless the plugin's section says
    `required: true`.
    """


@hookspec
def backy_backup_finished(job: Job, revision: RevisionInfo, config: Config) -> None:
    """Note that `revision` is complete. Called by `backup`.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_backup_failed(job: Job, error: str, config: Config) -> None:
    """Note that a backup failed. Called by `backup`, after the new revision was removed.

    Not called if repository or source were busy, or if the backup was interrupted. `error` is the line that
    users see. An exception is logged and changes nothing.
    """


@hookspec
def backy_verification_failed(
    job: Job, revision_id: str, mismatches: int, revisions: tuple[str, ...], config: Config
) -> None:
    """Note that `mismatches` chunks of a fresh revision differ from the source. Called by `backup`.

    What was stored is removed. If it was made from the changes that the source reported, all of the source was
    read next, and this is called once more if that found more; else `backy_backup_failed` is called, too. `revisions`
    has the ids of the earlier ones that are wrong now, as the source hid a change. An exception is logged and changes
    nothing.
    """


@hookspec
def backy_damage_found(job: Job, revisions: tuple[str, ...], chunks: int, config: Config) -> None:
    """Note that stored chunks are damaged. Called by `backup`, `verify` and `scrub`.

    `revisions` has the ids of those that refer to them and are distrusted now. An exception is logged and
    changes nothing.
    """


@hookspec
def backy_damage_repaired(job: Job, revisions: tuple[str, ...], chunks: int, config: Config) -> None:
    """Note that damaged chunks were repaired from a sound copy. Called by `backup`.

    `revisions` has the ids of those that refer to them. An exception is logged and changes nothing.
    """


@hookspec
def backy_journal_broken(job: Job, text: str, config: Config) -> None:
    """Note that a repository's journal does not fit its records. Called by the scheduler, once.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_restore_finished(job: Job, revision: RevisionInfo, target: str, config: Config) -> None:
    """Note that `revision` was restored. Called by `restore`, after the target is durable.

    `target` is the text that the user wrote; `-` is standard output. An exception is logged and changes
    nothing.
    """


@hookspec
def backy_restore_failed(job: Job, revision: RevisionInfo | None, target: str, error: str, config: Config) -> None:
    """Note that a restore failed. Called by `restore`.

    `revision` is None if there is no such revision. The target may have part of the image. `error` is the line
    that users see. Not called if the restore was interrupted. An exception is logged and changes nothing.
    """


@hookspec
def backy_expiring(job: Job, revision: RevisionInfo, tags: tuple[str, ...], config: Config) -> None:
    """Allow or refuse that `revision` loses `tags`.

    Called by `expire`, `forget` and `purge` under their lock, before anything goes. This event may veto: a BackyError
    keeps the revision as it is. Any other exception, a call that does not end in time, and a plugin that can
    not be loaded let nothing go at all; the command fails. A revision without tags left goes to the trash.
    """


@hookspec
def backy_revision_removed(job: Job, revision: RevisionInfo, config: Config) -> None:
    """Note that `revision` went to the trash, or is gone. Called by `expire` and `forget`.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_revision_purged(job: Job, revision: RevisionInfo, config: Config) -> None:
    """Note that `revision` is gone for good. Called by `purge` when its time in the trash is over.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_revision_undeleted(job: Job, revision: RevisionInfo, config: Config) -> None:
    """Note that `revision` is back from the trash. Called by `undelete`.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_purge_finished(job: Job, result: Purged, config: Config) -> None:
    """Note that a purge has ended. Called by `purge`.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_scrub_finished(job: Job, result: Mapping[str, Any], config: Config) -> None:
    """Note that a scrub has ended. Called by `scrub`.

    `result` has what `scrub --json` prints. An exception is logged and changes nothing.
    """


@hookspec
def backy_copy_finished(
    job: Job, revisions: tuple[str, ...], place: str, result: Mapping[str, Any], config: Config
) -> None:
    """Note that `revisions` were copied to or from `place`. Called by `pull` and `push`.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_copy_failed(job: Job, revisions: tuple[str, ...], place: str, error: str, config: Config) -> None:
    """Note that a copy to or from `place` failed. Called by `pull` and `push`.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_drill_finished(
    job: Job, revision: RevisionInfo, level: int, result: Mapping[str, Any], config: Config
) -> None:
    """Note that a drill of `revision` has reached `level`. Called by `drill`.

    `result` has what the file `<id>.drill` has. An exception is logged and changes nothing.
    """


@hookspec
def backy_drill_failed(job: Job, revision: RevisionInfo | None, level: int, error: str, config: Config) -> None:
    """Note that a drill of `revision` has not reached `level`. Called by `drill`.

    `revision` is None if there is no such revision. `error` is the line that users see. An exception is logged and
    changes nothing.
    """


@hookspec
def backy_job_finished(  # noqa: PLR0913, PLR0917  # plugins take only those that they need
    job: Job, outcome: str, error: str | None, failures: int, next_time: datetime | None, config: Config
) -> None:
    """Note that a run of a job has ended, however it did. Called by `scheduler`.

    `outcome` is `done`, `failed`, `busy` or `cancelled`. `error` is what the log of the scheduler says, or None. A
    backup that is done may have one: then something failed that follows a backup. `failures` counts failed runs in
    a row. `next_time` is None if the job is not due again. An exception is logged and changes nothing.
    """


@hookspec
def backy_job_overdue(job: Job, since: datetime, text: str, config: Config) -> None:
    """Note that a job does not keep its SLA any more. Called by `scheduler`.

    `since` is when it should have had a new revision. `text` is what `check` says of the job.
    An exception is logged and changes nothing.
    """


@hookspec
def backy_job_recovered(job: Job, since: datetime, text: str, config: Config) -> None:
    """Note that a job keeps its SLA again. Called by `scheduler`.

    `since` is when it had become overdue. `text` says so in a line. An exception is logged and changes nothing.
    """


@hookspec
def backy_copy_overdue(job: Job, place: str, since: datetime, text: str, config: Config) -> None:
    """Note that the copies at `place` are too old. Called by the scheduler.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_space_low(place: str, since: datetime, text: str, config: Config) -> None:
    """Note that the disk of the base directory `place` may be full within a week. Called by `scheduler`.

    It is called once when that becomes so, and again only after it was not so.

    An exception is logged and changes nothing.
    """


@hookspec
def backy_clock_suspect(place: str, since: datetime, text: str, config: Config) -> None:
    """Note that the clock can not be right: revisions of a job are ahead of it. Called by `scheduler`.

    `place` is the job's repository, and `text` the line that the log has. Called when a scheduler that starts waits for
    the clock to be set, and when the schedule ceases to count revisions. An exception is logged and changes nothing.
    """


@hookspec
def backy_console_commands() -> Iterable[ConsoleCommand]:  # type: ignore[empty-body]  # a specification has no body
    """Return commands for the scheduler's console. Called by `scheduler` when it starts and when it reloads.

    An exception is logged, and the plugin adds no commands.
    """
