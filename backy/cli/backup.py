"""`backy backup`: make a revision."""

from __future__ import annotations

from pathlib import Path

import click

from backy.revision import parse_tags


def _tags(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    try:
        return parse_tags(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("backup")
@click.argument("tags", metavar="TAGS", callback=_tags)
@click.pass_obj
def command(directory: Path, tags: tuple[str, ...]) -> None:
    """Back up the source as a new revision with TAGS.

    TAGS is one tag or several with commas between them. The revision is complete only when it was verified; if
    anything fails, it is removed and the older ones are as they were.
    """
    from backy.backup import Backup
    from backy.cli.progress import steps
    from backy.repository import Repository

    repository = Repository.open(directory)
    with steps() as show:
        revision = Backup(repository, tags, steps=show).run()
    click.echo(f"{revision.id} {revision.verification}")
