"""`backy tags`: change the tags of a revision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from backy.cli.options import force_option, tags_argument
from backy.errors import RevisionNotFoundError

_revision_option = click.option(
    "-r", "--revision", "specification", metavar="SPEC", required=True, help="Which revision."
)


@click.group("tags")
def command() -> None:
    """Change the tags of a revision: they decide how long it is kept."""


@command.command("set")
@tags_argument
@_revision_option
@force_option
@click.pass_obj
def set_(directory: Path, tags: tuple[str, ...], specification: str, force: bool) -> None:
    """Give a revision TAGS instead of those that it has."""
    _change(directory, specification, [] if force else tags, lambda _: set(tags))


@command.command("add")
@tags_argument
@_revision_option
@force_option
@click.pass_obj
def add(directory: Path, tags: tuple[str, ...], specification: str, force: bool) -> None:
    """Give a revision TAGS beside those that it has."""
    _change(directory, specification, [] if force else tags, lambda old: old | set(tags))


@command.command("remove")
@tags_argument
@_revision_option
@click.pass_obj
def remove(directory: Path, tags: tuple[str, ...], specification: str) -> None:
    """Take TAGS away from a revision. One that has no tags left is removed when the job's next revisions expire."""

    def without(old: set[str]) -> set[str]:
        if missing := set(tags) - old:
            raise RevisionNotFoundError(
                f"the revision does not have '{min(missing)}'; its tags are: {', '.join(sorted(old)) or 'none'}"
            )
        return old - set(tags)

    _change(directory, specification, [], without)


def _change(
    directory: Path, specification: str, checked: tuple[str, ...] | list[str], change: Callable[[set[str]], set[str]]
) -> None:
    """Change a revision's tags, `checked` of which have to be in the schedule, and print what it has then."""
    from backy.locking import BACKUP_LOCK, exclusive
    from backy.repository import Repository
    from backy.tags import check_tags, retag

    repository = Repository.open(directory)
    check_tags(repository.config, checked)
    with exclusive(repository.directory, BACKUP_LOCK):
        revision = repository.select(specification)
        revision = retag(repository, revision, change(set(revision.tags)))
    click.echo(f"{revision.id} {','.join(revision.tags) or 'has no tags: it is removed when revisions expire'}")
