"""`backy convert`: move revisions to another storage."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.output import echo
from backy.errors import DamageError
from backy.text.phrases import counted


@click.command("convert")
@click.option("--storage", metavar="NAME", required=True, help="How images are to be kept.")
@click.pass_obj
def command(directory: Path, storage: str) -> None:
    """Move all revisions into another storage, such as 'chunked' or 'cow'.

    The newest comes first; its old data is removed once the new data was read back, so there must be room for both.
    Revisions keep their ids, tags, times and trust, and can be read all the while; backups end with exit code 75
    meanwhile. It can be interrupted at any time, and goes on when it is called again.
    """
    from backy.backup.convert import Conversion
    from backy.cli.progress import steps
    from backy.repository.repository import Repository

    with steps() as show:
        done = Conversion(Repository.open(directory), storage, steps=show).run()
    echo(f"Converted {counted(len(done.revisions), 'revision')} to '{storage}'")
    # Reported last: the revisions that are not damaged have been converted all the same.
    if done.failed:
        # One cause is enough for a line: most often a bad disk is the cause of all.
        ids, first = ", ".join(done.failed), next(iter(done.failed.values()))
        raise DamageError(
            f"{counted(len(done.failed), 'revision is', 'revisions are')} damaged and left alone: {ids}; {first}. "
            "Repair them, or remove them by 'backy forget', and convert again"
        )
