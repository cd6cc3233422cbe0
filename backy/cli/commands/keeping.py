"""How long revisions stay: `backy tags`, `forget`, `undelete`, `expire` and `purge`."""

from pathlib import Path

import click

from backy.cli.completion import trashed
from backy.cli.disks import each_disk, found_in, repository_of
from backy.cli.options import Decorator, dry_run_option, force_option, revision_of, tags_argument
from backy.cli.output import answer, chosen
from backy.cli.revisions import answer_with
from backy.cli.usage import Group
from backy.repository.revision import Revision, utc_now
from backy.text.phrases import counted, local_time, size

# Without a default, unlike the shared option: tags decide how long a revision is kept.
_revision_option = revision_of("Which revision.", required=True)


@click.group("tags", cls=Group)
def tags() -> None:
    """Change the tags of a revision: they decide how long it is kept."""


def _changing(name: str) -> Decorator:
    """Return what makes a command below `tags` of a function that is called for each disk."""
    return lambda function: tags.command(name)(tags_argument(_revision_option(each_disk(function))))


@_changing("set")
@force_option
def set_(directory: Path, tags: tuple[str, ...], specification: str, force: bool) -> None:
    """Replace all tags of a revision by TAGS."""
    from backy.retention.tags import set_tags

    _show(set_tags(repository_of(directory), specification, tags, force=force))


@_changing("add")
@force_option
def add(directory: Path, tags: tuple[str, ...], specification: str, force: bool) -> None:
    """Add TAGS to those of a revision."""
    from backy.retention.tags import add_tags

    _show(add_tags(repository_of(directory), specification, tags, force=force))


@_changing("remove")  # no --force: a tag that the schedule does not have may always go
def remove(directory: Path, tags: tuple[str, ...], specification: str) -> None:
    """Remove TAGS from a revision. A revision without tags is removed when the job's next revisions expire."""
    from backy.retention.tags import remove_tags

    _show(remove_tags(repository_of(directory), specification, tags))


def _show(revision: Revision) -> None:
    tags = ",".join(revision.tags) or "has no tags: it is removed when revisions expire"
    answer_with([revision], f"{revision.id} {tags}")


_WHICH = "Which revision, may be repeated; the full id also removes one whose record is damaged."


# Without a default: a revision is not removed because a word was forgotten.
@click.command("forget")
@revision_of(_WHICH, "-r", "--revision", "specifications", required=True, multiple=True)
@click.option("--force", is_flag=True, help="Forget the last good one, many, or an unreadable one; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why; the journal keeps it.")
@dry_run_option
def forget(directory: Path, specifications: tuple[str, ...], force: bool, reason: str | None, dry_run: bool) -> None:
    """Put revisions into the trash.

    'backy undelete' brings them back. 'backy purge' frees the space that only they used when their time in the trash is
    over, 7 days unless the key 'trash' says otherwise. While a backup runs, the revision that it builds upon stays.
    """
    from backy.groups.forget import forget

    if force and not (reason and reason.strip()):
        raise click.UsageError("--force needs --reason TEXT: why so much is forgotten")
    if reason and not reason.isprintable():
        raise click.UsageError("--reason has characters that can not be printed")
    gone = forget(found_in(directory), specifications, reason, force=force, dry_run=dry_run)
    verb = "Would forget" if dry_run else "Forgot"
    answer({"revisions": [{"id": one} for one in gone]}, *(f"{verb} {one}" for one in gone))


@click.command("undelete")
@click.argument("revision_id", metavar="ID", shell_complete=trashed)
def undelete(directory: Path, revision_id: str) -> None:
    """Get a revision back that was forgotten, or that expired, and that the trash still has.

    It gets the tag 'manual:undeleted', so that it does not expire again. 'backy status --trash' shows what is there.
    """
    from backy.groups.forget import undelete

    revision = undelete(found_in(directory), revision_id)
    answer_with([revision], f"{revision.id} is back, with the tags {', '.join(revision.tags)}")


@click.command("expire")
@dry_run_option
def expire(directory: Path, dry_run: bool) -> None:
    """Remove the tags that have expired by the job's schedule, and the revisions that have no tags left.

    A tag expires when it is older than 'keep' of its intervals and 'keep' newer revisions that are not in doubt have
    it. Expire only after a successful backup, as the scheduler does. 'backy why' tells why a revision is kept. Those
    that are removed go to the trash, as by 'backy forget', and 'backy purge' frees their space when their term there
    is over.
    """
    from backy.groups.forget import due, expire

    found = found_in(directory)
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


@click.command("purge")
@click.option("--trash", is_flag=True, help="Empty the trash now, and not when the time of its revisions is over.")
@dry_run_option
def purge(directory: Path, trash: bool, dry_run: bool) -> None:
    """Free the space of chunks that no revision refers to any more.

    What has been in the trash for its time is removed first: '--dry-run' tells which revisions that are.
    """
    from backy.groups.acts import purge_all
    from backy.groups.group import opened
    from backy.retention.purge import over, purge

    group = opened(directory)
    if dry_run:
        each = map(group.repository, group.names()) if group else [repository_of(directory)]
        over_each = (over(one, one.records.states(), utc_now(), everything=trash) for one in each)
        going = sorted(set[str]().union(*over_each))
        texts = [f"Would remove {one} for good" for one in going]
        nothing = "Nothing in the trash has been there for its time"
        answer({"revisions": [{"id": one} for one in going]}, *(texts or [nothing]))
        return
    purged = purge_all(group, everything=trash) if group else purge(repository_of(directory), everything=trash)
    # Files, not chunks: a file that other chunks are made of stays although its own chunk is gone.
    answer(chosen(purged, "files", "bytes"), f"Purged: {counted(purged.files, 'file')}, {size(purged.bytes)}")
