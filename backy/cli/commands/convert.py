"""`backy convert`: move revisions to another storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from backy.cli.options import settings_of
from backy.cli.output import echo
from backy.errors import DamageError
from backy.text.phrases import counted


@click.command("convert")
@click.option("--storage", metavar="NAME", required=True, help="How images are to be kept.")
@click.option(
    "-o",
    "settings",
    metavar="storage.KEY=VALUE",
    multiple=True,
    callback=settings_of,
    help="A key of the section 'storage', such as 'storage.name', the folder; may be given several times.",
)
@click.pass_obj
def command(directory: Path, storage: str, settings: dict[str, dict[str, Any]]) -> None:
    """Move all revisions into another storage, such as 'chunked' or 'cow'.

    Without '-o', NAME is a storage that the job has or had, if there is one of this type. For another one of the same
    type, give it a folder of its own: '-o storage.name=FOLDER'.

    The newest comes first; its old data is removed once the new data was read back, so there must be room for both.
    Revisions keep their ids, tags, times and trust, and can be read all the while; backups end with exit code 75
    meanwhile. It can be interrupted at any time, and goes on when it is called again.
    """
    from backy.backup.convert import Conversion
    from backy.cli.progress import steps
    from backy.repository.repository import Repository

    for section in settings.keys() - {"storage"}:
        raise click.UsageError(f"'-o {section}...' is not of the form storage.KEY=VALUE")
    with steps() as show:
        done = Conversion(Repository.open(directory), storage, settings.get("storage", {}), steps=show).run()
    echo(f"Converted {counted(len(done.revisions), 'revision')} to '{storage}'")
    # Reported last: the revisions that are not damaged have been converted all the same.
    if done.failed:
        # One cause is enough for a line: most often a bad disk is the cause of all.
        ids, first = ", ".join(done.failed), next(iter(done.failed.values()))
        raise DamageError(
            f"{counted(len(done.failed), 'revision is', 'revisions are')} damaged and left alone: {ids}; {first}. "
            "Repair them, or remove them by 'backy forget', and convert again"
        )
