"""`backy expire`: remove tags and revisions that have expired by the schedule."""

from pathlib import Path

import click

from backy.cli.output import echo
from backy.text.phrases import counted, local_time


@click.command("expire")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.pass_obj
def command(directory: Path, dry_run: bool) -> None:
    """Remove the tags that have expired by the job's schedule, and the revisions that have no tags left.

    A tag expires when it is older than 'keep' of its intervals and 'keep' newer revisions that are not in doubt have
    it. Expire only after a successful backup, as the scheduler does. 'backy why' tells why a revision is kept. Those
    that are removed go to the trash, as by 'backy forget', and 'backy purge' frees their space when their term there
    is over.
    """
    from backy.groups import acts
    from backy.groups.group import opened
    from backy.repository.repository import Repository
    from backy.repository.revision import utc_now
    from backy.retention.forget import due, expire

    found = opened(directory) or Repository.open(directory)
    # Said in words: "Removed 0 revisions" would hide that none will ever be.
    if not found.config.schedule:
        echo("Nothing expires: the repository's config has no schedule")
        return
    if not found.config.expire:
        echo("Nothing expires: the repository's config says 'expire: false'")
        return
    # The clock itself for `expire`: it is read when no other command changes the revisions.
    if isinstance(found, Repository):
        done, waiting = due(found, utc_now()) if dry_run else expire(found, utc_now)
    else:
        done, waiting = acts.due(found, utc_now()) if dry_run else acts.expire(found, utc_now)
    for revision, remaining in done:
        what = f"loses {','.join(tag for tag in revision.tags if tag not in remaining)}" if remaining else "is removed"
        echo(f"{revision.id}  {local_time(revision.timestamp)}  {','.join(revision.tags)}: {what}")
    removed = sum(not expiry.remaining for expiry in done)
    verb = "Would remove" if dry_run else "Removed"
    echo(f"{verb} {counted(removed, 'revision')}, and tags of {counted(len(done) - removed, 'other')}")
    if waiting:
        echo(f"{counted(waiting, 'more waits', 'more wait')}: no more go at a time than were made since, and one")
