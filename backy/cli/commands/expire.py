"""`backy expire`: remove tags and revisions that have expired by the schedule."""

from pathlib import Path

import click

from backy.cli.options import dry_run_option
from backy.cli.output import answer
from backy.text.phrases import counted, local_time


@click.command("expire")
@dry_run_option
def command(directory: Path, dry_run: bool) -> None:
    """Remove the tags that have expired by the job's schedule, and the revisions that have no tags left.

    A tag expires when it is older than 'keep' of its intervals and 'keep' newer revisions that are not in doubt have
    it. Expire only after a successful backup, as the scheduler does. 'backy why' tells why a revision is kept. Those
    that are removed go to the trash, as by 'backy forget', and 'backy purge' frees their space when their term there
    is over.
    """
    from backy.groups.forget import due, expire
    from backy.groups.group import opened
    from backy.repository.repository import Repository
    from backy.repository.revision import utc_now

    found = opened(directory) or Repository.open(directory)
    config = found.config
    # Said in words: "Removed 0 revisions" would hide that none will ever be.
    if not config.schedule or not config.expire:
        why = "says 'expire: false'" if config.schedule else "has no schedule"
        answer({"revisions": [], "waiting": 0}, f"Nothing expires: the repository's config {why}")
        return
    # The clock itself for `expire`: it is read when no other command changes the revisions.
    done, waiting = due(found, utc_now()) if dry_run else expire(found, utc_now)
    expired = [{"id": one.id, "tags": one.tags, "remaining": remaining} for one, remaining in done]
    texts = []
    for revision, remaining in done:
        what = f"loses {','.join(tag for tag in revision.tags if tag not in remaining)}" if remaining else "is removed"
        texts.append(f"{revision.id}  {local_time(revision.timestamp)}  {','.join(revision.tags)}: {what}")
    removed = sum(not expiry.remaining for expiry in done)
    verb = "Would remove" if dry_run else "Removed"
    texts.append(f"{verb} {counted(removed, 'revision')}, and tags of {counted(len(done) - removed, 'other')}")
    if waiting:
        held = counted(waiting, "more waits", "more wait")
        texts.append(f"{held}: no more go at a time than were made since, and one")
    answer({"revisions": expired, "waiting": waiting}, *texts)
