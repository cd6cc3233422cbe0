"""NAME as a hook for backy: what the entry point names.

A file `NAME.log` beside the repositories tells what happened to them.
While there is a file `NAME.stop` beside them, no backup begins.
"""

from __future__ import annotations

from backy.api import BackyError, Job, RevisionInfo
from backy.hookspecs import hookimpl

BACKY_CONTRACT = "1.0"


@hookimpl
def backy_backup_starting(job: Job) -> None:
    """Refuse a backup by a BackyError, whose text users see."""
    if (job.directory.parent / "NAME.stop").exists():
        raise BackyError("there is a file NAME.stop")


@hookimpl
def backy_backup_finished(job: Job, revision: RevisionInfo) -> None:
    """Learn that a revision is complete."""
    _note(job, f"revision {revision.id} is complete")


@hookimpl
def backy_backup_failed(job: Job, error: str) -> None:
    """Learn that a backup failed, by the line that users see."""
    _note(job, f"backup failed: {error}")


def _note(job: Job, text: str) -> None:
    """Write a line. Put what you want to be told by in its place; that it fails is logged, and harms no backup."""
    with (job.directory.parent / "NAME.log").open("a") as log:
        log.write(f"{job.name}: {text}\n")
