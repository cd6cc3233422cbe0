"""`backy backup`: make a revision."""

import logging
import sys
from pathlib import Path

import click

from backy.cli.options import force_option, tags_argument
from backy.cli.output import answer, discard
from backy.cli.revisions import described

log = logging.getLogger(__name__)


@click.command("backup")
@tags_argument
@force_option
@click.option("--configure", is_flag=True, hidden=True, help="Replace 'config' by standard input; for the scheduler.")
@click.pass_obj
def command(directory: Path, tags: tuple[str, ...], force: bool, configure: bool) -> None:
    """Back up the source as a new revision with TAGS.

    TAGS is one tag or several with commas between them. In a job with a schedule they are those of the schedule, or
    begin with 'manual:' and never expire. The revision is complete only when it was verified; if anything fails, it is
    removed and the older ones are as they were. Of a machine with several 'disks' all are backed up at one instant.
    """
    from backy.backup.backup import Backup
    from backy.cli.progress import steps
    from backy.groups.acts import backup
    from backy.groups.group import opened
    from backy.repository.repository import Repository
    from backy.retention.tags import check_tags
    from backy.scheduler.jobs.repositories import configure as configured

    given = configured(directory, sys.stdin.buffer.read()) if configure else None
    found = given or opened(directory) or Repository.open(directory)
    # Before anything else: a mistyped tag is found before the source makes a snapshot.
    if not force:
        check_tags(found.config, tags)
    with steps() as show:
        if isinstance(found, Repository):
            members = {"": Backup(found, tags, steps=show).run()}
        else:
            members = {f"{name}: ": one for name, one in backup(found, tags, steps=show).members.items()}
    texts = [f"{one.id} {name}{one.verification}" for name, one in members.items()]
    try:
        answer({"revisions": [*map(described, members.values())]}, *texts)
    except OSError as error:
        # Who can not be told of it shall not make it again.
        log.warning("%s is complete, but standard output can not be written: %s", texts[0].split()[0], error.strerror)
        discard()
