"""`backy backup`: make a revision."""

from __future__ import annotations

from pathlib import Path

import click

from backy.cli.options import force_option, tags_argument
from backy.cli.output import echo


@click.command("backup")
@tags_argument
@force_option
@click.pass_obj
def command(directory: Path, tags: tuple[str, ...], force: bool) -> None:
    """Back up the source as a new revision with TAGS.

    TAGS is one tag or several with commas between them. In a job with a schedule they are those of the schedule, or
    begin with 'manual:' and never expire. The revision is complete only when it was verified; if anything fails, it is
    removed and the older ones are as they were.
    """
    from backy.backup.backup import Backup
    from backy.cli.progress import steps
    from backy.repository.repository import Repository
    from backy.retention.tags import check_tags

    repository = Repository.open(directory)
    # Before anything else: a mistyped tag is found before the source makes a snapshot.
    if not force:
        check_tags(repository.config, tags)
    with steps() as show:
        revision = Backup(repository, tags, steps=show).run()
    echo(f"{revision.id} {revision.verification}")
