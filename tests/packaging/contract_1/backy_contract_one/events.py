"""Writes down what happens beside the repository."""

from __future__ import annotations

from backy.api import Job, RevisionInfo
from backy.hookspecs import hookimpl

BACKY_CONTRACT = "1.0"


def note(job: Job, text: str) -> None:
    with job.directory.with_suffix(".events").open("a") as stream:
        stream.write(f"{text}\n")


@hookimpl
def backy_backup_starting(job: Job, tags: tuple[str, ...]) -> None:
    note(job, f"starting {','.join(tags)}")


@hookimpl
def backy_backup_finished(job: Job, revision: RevisionInfo) -> None:
    note(job, "finished")


@hookimpl
def backy_backup_failed(job: Job, error: str) -> None:
    note(job, f"failed: {error}")


@hookimpl
def backy_verification_failed(job: Job, revision_id: str, mismatches: int) -> None:
    note(job, f"{mismatches} mismatches")


@hookimpl
def backy_restore_finished(job: Job, revision: RevisionInfo, target: str) -> None:
    note(job, f"restored to {target}")
