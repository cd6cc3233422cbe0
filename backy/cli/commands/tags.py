"""`backy tags`: change the tags of a revision."""

from pathlib import Path

import click

from backy.cli.disks import each_disk, repository_of
from backy.cli.options import force_option, revision_of, tags_argument
from backy.cli.revisions import answer_with
from backy.cli.usage import Group
from backy.repository.revision import Revision

# Without a default, unlike the shared option: tags decide how long a revision is kept.
_revision_option = revision_of("Which revision.", required=True)


@click.group("tags", cls=Group)
def command() -> None:
    """Change the tags of a revision: they decide how long it is kept."""


@command.command("set")
@tags_argument
@_revision_option
@force_option
@each_disk
def set_(directory: Path, tags: tuple[str, ...], specification: str, force: bool) -> None:
    """Replace all tags of a revision by TAGS."""
    from backy.retention.tags import set_tags

    _show(set_tags(repository_of(directory), specification, tags, force=force))


@command.command("add")
@tags_argument
@_revision_option
@force_option
@each_disk
def add(directory: Path, tags: tuple[str, ...], specification: str, force: bool) -> None:
    """Add TAGS to those of a revision."""
    from backy.retention.tags import add_tags

    _show(add_tags(repository_of(directory), specification, tags, force=force))


@command.command("remove")
@tags_argument
@_revision_option
@each_disk  # no --force: a tag that the schedule does not have may always go
def remove(directory: Path, tags: tuple[str, ...], specification: str) -> None:
    """Remove TAGS from a revision. A revision without tags is removed when the job's next revisions expire."""
    from backy.retention.tags import remove_tags

    _show(remove_tags(repository_of(directory), specification, tags))


def _show(revision: Revision) -> None:
    tags = ",".join(revision.tags) or "has no tags: it is removed when revisions expire"
    answer_with([revision], f"{revision.id} {tags}")
