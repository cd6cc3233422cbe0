"""`backy convert`: move revisions to another storage."""

import logging
from pathlib import Path
from typing import Any

import click

from backy.cli.options import dry_run_option, settings_option, storage_option
from backy.cli.output import answer
from backy.errors import DamageError
from backy.scheduler import DEFAULT_CONFIGURATION  # from the package itself: it imports nothing of the scheduler
from backy.text.phrases import counted

log = logging.getLogger(__name__)


@click.command("convert")
@storage_option("NAME", "How images are to be kept.", required=True)
@settings_option(
    "storage.KEY=VALUE",
    "A key of the section 'storage', such as 'storage.name', the folder; may be given several times.",
)
@dry_run_option
def command(directory: Path, storage: str, settings: dict[str, dict[str, Any]], dry_run: bool) -> None:
    """Move all revisions into another storage, such as 'chunked' or 'cow'.

    Without '-o', NAME is a storage that the job has or had, if there is one of this type. For another one of the same
    type, give it a folder of its own: '-o storage.name=FOLDER'.

    The newest comes first; its old data is removed once the new data was read back, so there must be room for both.
    Revisions keep their ids, tags, times and trust, and can be read all the while; backups end with exit code 75
    meanwhile. It can be interrupted at any time, and goes on when it is called again.
    """
    from backy.cli.progress import steps
    from backy.conversion.convert import Conversion
    from backy.repository.repository import Repository
    from backy.scheduler.monitoring.check import job_of

    for section in settings.keys() - {"storage"}:
        raise click.UsageError(f"'-o {section}...' is not of the form storage.KEY=VALUE")
    repository = Repository.open(directory)
    conversion = Conversion(repository, storage, settings.get("storage", {}))
    job = job_of(repository.directory, DEFAULT_CONFIGURATION)
    # Before hours of work: it would be in vain for all revisions to come.
    if job and job.config.storage.folder != conversion.target.folder:
        text = "the scheduler's configuration has '%s' for job %s: its next run goes back to it; write '%s' there, too"
        log.warning(text, job.config.storage.type, job.name, storage)
    if dry_run:
        going = conversion.plan()
        answer({"revisions": [{"id": one} for one in going]}, *(f"Would convert {one}" for one in going))
        return
    with steps() as conversion.steps:
        done = conversion.run()
    text = f"Converted {counted(len(done.revisions), 'revision')} to '{storage}'"
    answer({"revisions": [{"id": one} for one in done.revisions], "failed": done.failed}, text)
    # Reported last: the revisions that are not damaged have been converted all the same.
    if done.failed:
        # One cause is enough for a line: most often a bad disk is the cause of all.
        ids, first = ", ".join(done.failed), next(iter(done.failed.values()))
        what = f"{counted(len(done.failed), 'revision is', 'revisions are')} damaged and left alone: {ids}; {first}"
        raise DamageError(f"{what}. 'backy verify' reads them again; convert again when they are sound")
