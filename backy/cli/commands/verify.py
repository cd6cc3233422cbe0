"""`backy verify`: read all of a revision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from backy.integrity.verify import Verdict


@click.command("verify")
@click.option("-r", "--revision", "specification", metavar="SPEC", help="Verify this revision only.")
@click.pass_obj
def command(directory: Path, specification: str | None) -> None:
    """Read all of the distrusted revisions, or of one, and compare every chunk with its id.

    A revision that is sound becomes 'verified'; one that is not stays or becomes 'distrusted'.
    """
    from backy.cli.progress import steps
    from backy.integrity.verify import verify_all
    from backy.repository.repository import Repository

    repository = Repository.open(directory)
    with steps() as show:
        found = verify_all(repository, specification, _tell, steps=show)
    if not found:
        click.echo("No revision is distrusted; 'backy verify -r SPEC' reads one all the same")


def _tell(verdict: Verdict) -> None:
    if verdict.forgotten is None:
        click.echo(f"{verdict.revision.id} {verdict.revision.trust}")
    else:
        click.echo(verdict.forgotten, err=True)
